"""What jobs of a cluster need: profiles, their mistakes and the template."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError
from synthdiv.engine.profile import Profile, template
from synthdiv.generate.spec import Backend
from tests.conftest import ROOT
from tests.engine.test_pack import Training, Work


def profile(folder: Path, text: str) -> str:
    (folder / "mine.yaml").write_text(text)
    return str(folder / "mine.yaml")


def test_the_command_line_overrides_a_profile(tmp_path):
    path = profile(
        tmp_path,
        "partition: gpu\naccount: me\ntime: 4:00:00\noptions: {mem: 64G, cpus-per-task: 8, exclusive: true}\n"
        "stages: {pack_training: {time: 12:00:00, mem: 8G, exclusive: false}}\nsetup: [module load cuda]\n",
    )
    loaded = Profile.of(path, {"partition": "cpu", "account": None, "options": {"mem": "1G"}})
    assert loaded.setup == ["module load cuda"]
    assert dict(loaded.shape(Node(Work()))) == {
        "partition": "cpu", "account": "me", "time": "4:00:00", "mem": "1G", "cpus-per-task": 8, "exclusive": True,
    }  # fmt: skip
    assert dict(loaded.shape(Node(Training()))) == {
        "partition": "cpu", "account": "me", "time": "12:00:00", "mem": "8G", "cpus-per-task": 8,
    }  # fmt: skip


def test_stages_with_equal_options_have_one_shape():
    loaded = Profile.of(None, {"stages": {"pack_work": {"mem": 1, "gpus": 2}, "pack_training": {"gpus": 2, "mem": 1}}})
    assert loaded.shape(Node(Work())) == loaded.shape(Node(Training()))


def test_the_example_profile_names_existing_stages():
    from synthdiv.core.stage import Stage
    from synthdiv.evaluate.suite import own_suites, suite_class
    from synthdiv.study import pipeline  # noqa: F401  all stages are known once it and the suites are imported

    for name in own_suites():
        suite_class(name)
    loaded = Profile.of(str(ROOT / "launchers/slurm/example.yaml"), {})
    assert loaded.time == "4:00:00"
    kinds = [Stage]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert set(loaded.stages) <= {kind.name for kind in kinds[1:]} | {backend.value for backend in Backend}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "partitoin: gpu\n",
            "Key 'partitoin' not in 'Profile'; the fields are partition, account, time, options",
        ),
        ("stages: {train: 3}\n", "Value 3"),
        ("stages: {train: null}\n", "stages"),
        (
            "options: {gres: [gpu, gpu]}\n",
            "gres is ['gpu', 'gpu']; give a text, a number, true or",
        ),
        ("options: {mem: 1\n", "is not YAML"),
        ("- partition\n", "the fields are partition, account"),
        ("setup: module load cuda\n", "the fields are partition, account"),
        ("time: 240\n", "time is 240; write it in quotes, as '4:00:00'"),
        ("stages: {train: {time: 14400}}\n", "time is 14400; write it in quotes"),
    ],
)
def test_a_bad_profile_is_refused_with_its_problem(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        Profile.of(profile(tmp_path, text), {})
    assert str(caught.value).startswith(f"hydra.launcher.profile={tmp_path / 'mine.yaml'}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("path", ["none.yaml", "."])
def test_a_profile_that_cannot_be_read_names_the_example(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"profile={path}: .*launchers/slurm/example.yaml is an example"):
        Profile.of(path, {})


def test_a_missing_template_is_refused():
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.template=mine\.sbatch: no such file"):
        template("mine.sbatch")
