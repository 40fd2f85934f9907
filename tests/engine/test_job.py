"""Job files: every node comes back as it was, and a file of another version says so."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.ledger import NodeRecord
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node, canonical_fields
from synthdiv.core.types import ConfigError
from synthdiv.engine.job import Job
from synthdiv.study.config import Track, TrackerName
from synthdiv.study.records import node_record, plain
from synthdiv.train.recipe import Lora, Method, Shape
from synthdiv.train.train import Train
from tests.conftest import FILES, sources, write_files
from tests.engine.stages import Act, Given

RESUME = "type the command of the sweep again"


def job(nodes: list[Node], **fields) -> Job:
    return Job("j", "s", Runtime(device="cpu"), Track(), None, Given(nodes).graph(), **fields)


def frozen(typed, monkeypatch, *words: str) -> dict[str, Node]:
    """Every node of a command's sweep, and none is built."""
    actual: dict[str, Node] = {}
    monkeypatch.setattr("synthdiv.engine.engine.Engine.run", lambda engine: actual.update(engine.nodes) or 0)
    assert typed(*words).code == 0
    return actual


STUDIES = {
    "demo": ["-m", "experiment=demo"],
    "files": ["-m", *FILES, sources("one", "two"), "mix=none,human,single,multi"],
    "lora": [*FILES, "mix=human", "train=lora", "train.lora.r=4", "train.lr=3e-7"],
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_job_file_keeps_key_and_fields_of_every_node(typed, tmp_path, monkeypatch, study):
    write_files(tmp_path)
    nodes = frozen(typed, monkeypatch, *STUDIES[study])
    written = job(list(nodes.values()), attempts=dict.fromkeys(nodes, 3))
    written.write(tmp_path / "jobs" / "job.json")
    read = Job.read(tmp_path / "jobs" / "job.json")
    assert read == written
    actual = read.rebuilt()
    assert list(actual) == list(nodes)
    for key, node in actual.items():
        assert node.key == key
        assert node.stage == nodes[key].stage, "locators too, which no key knows"
        assert [inner.key for inner in node.inputs.values()] == [inner.key for inner in nodes[key].inputs.values()]
        assert node_record(node) == node_record(nodes[key])
    kinds = {node.stage.name for node in nodes.values()}
    assert kinds >= {"prompts", "pretrain", "mix", "train", "generate", "likelihood", "collapse"}


def test_a_job_is_all_that_its_worker_needs(tmp_path):
    written = Job(
        "j", "s", Runtime("elsewhere", "cuda:1", 3, 7, 1.5, 2.5), Track(TrackerName.wandb, "p", "e", 9), ["a", "b"],
        [NodeRecord("a", "act", {"input0": "c"}, {"steps": 2})], {"a": 4}, 5,
    )  # fmt: skip
    written.write(tmp_path / "job.json")
    read = Job.read(tmp_path / "job.json")
    assert read == written
    assert isinstance(read.track.name, TrackerName)


trains = st.builds(
    Train,
    method=st.sampled_from(Method),
    lora=st.builds(Lora, st.integers(1, 99), st.floats(0.01, 9), st.floats(0, 0.9), st.lists(st.text(), max_size=3)),
    epochs=st.floats(1e-9, 1e9),
    budget=st.none() | st.integers(1),
    lr=st.floats(1e-300, 1),
    schedule=st.sampled_from(Shape),
    seed=st.integers(0, 2**32 - 1),
)


@given(stage=trains | st.builds(Act, st.integers(), st.text(), marks=st.none() | st.text()))
def test_a_job_file_keeps_any_stage(stage):
    """By way of the text of a file: floats to the last bit, enums, lists, optional fields, any name."""
    node = Node(stage, dict.fromkeys(stage.input_names(), Node(Act())))
    rows = json.loads(json.dumps([dataclasses.asdict(record) for record in job([node]).graph]))
    actual = job([])
    actual.graph = [NodeRecord(**row) for row in rows]
    *_, back = actual.rebuilt().values()
    assert back.stage == stage
    assert canonical_fields(back.stage) == canonical_fields(stage)
    assert plain(back.stage) == plain(stage)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read as a job file"), ("[1]", "cannot be read as a job file"),
        ('{"format": 0}', "is a job file of format 0, this version reads 1"),
        ("{}", "is a job file of format None"), ('{"format": 1}', "is not a job file of this version"),
        ('{"format": 1, "name": "j", "colour": "red"}', "is not a job file of this version (KeyError('colour'))"),
        (None, "cannot be read as a job file"),
    ],
)  # fmt: skip
def test_an_unreadable_job_file_is_refused_with_a_message(tmp_path, text, says):
    path = tmp_path / "job.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        Job.read(path)
    assert str(path) in str(caught.value)
    assert RESUME in str(caught.value)


def older(change) -> Job:
    """A job whose only node was written by an earlier version."""
    queued = job([Node(Act(number=1, steps=2))])
    queued.graph = [change(queued.graph[0])]
    return queued


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: dataclasses.replace(row, stage="mumble"), "no such stage in this version of synthdiv"),
        (lambda row: dataclasses.replace(row, fields=row.fields | {"gone": 1}), "cannot read its fields"),
        (lambda row: dataclasses.replace(row, inputs={"input0": "nowhere"}), "cannot read its fields"),
        (lambda row: dataclasses.replace(row, fields=row.fields | {"steps": 3}), "was queued by another version"),
    ],
)
def test_a_node_of_another_version_is_refused_with_a_message(change, says):
    queued = older(change)
    with pytest.raises(ConfigError, match=says) as caught:
        queued.rebuilt()
    assert f"{queued.graph[0].stage} {queued.graph[0].key[:8]}" in str(caught.value)
    assert RESUME in str(caught.value)


def test_a_stage_with_a_raised_version_is_not_built_under_the_old_key(monkeypatch):
    queued = older(lambda row: row)
    monkeypatch.setattr(Act, "version", Act.version + 1)
    with pytest.raises(ConfigError, match="another version of synthdiv, which gives it the key"):
        queued.rebuilt()


def test_the_worker_ends_with_2_and_a_message(tmp_path):
    path = tmp_path / "job.json"
    path.write_text('{"format": 0}')
    for words in ([str(path)], [str(tmp_path / "none.json")], []):
        done = subprocess.run([sys.executable, "-m", "synthdiv.worker", *words], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
