"""The inline engine on a study of files: one failure costs what stands on it, a second run what is missing."""

from __future__ import annotations

import json
import shlex
import shutil

import pytest
import torch

from synthdiv.core.ledger import Ledger
from tests.conftest import FILES, sources, write_files, write_rows

GRID = ["-m", *FILES, sources("one", "two"), "mix=single", "mix.source=one,two", "sweep=s"]
TWO = "generators.models.1.recorded.path=two.jsonl"


@pytest.fixture
def rows(tmp_path):
    """Prompts and answers; `two` answers from a file of its own."""
    rows = write_files(tmp_path)
    answers = [row | {"source": "two", "response": f"second {row['response']}"} for row in rows]
    write_rows(tmp_path / "two.jsonl", answers)
    return answers


def built(ledger: Ledger) -> list[str]:
    return [event.node for event in ledger.events() if event.state == "built"]


DIVERGING = ["-m", *FILES, "mix=human", "train.lr=3e-3,1e9", "sweep=s"]


def test_a_failed_node_blocks_only_what_depends_on_it(typed, tmp_path, rows):
    done = typed(*DIVERGING)
    ledger = Ledger(tmp_path / "outputs", "s")
    one, two = ledger.unique_cells()
    states = {event.node: event.state for event in ledger.events()}
    nodes = {node.key: node for node in ledger.nodes()}
    failed = [key for key, state in states.items() if state == "failed"]
    assert done.code == 1
    assert {states[key] for key in one.nodes} == {"built"}
    assert [nodes[key].stage for key in failed] == ["train"]
    assert set(failed) < set(two.nodes)
    never = {nodes[key].stage for key in two.nodes if key not in states}
    assert never == {"collapse", "generate", "likelihood"}, "blocked, not tried"

    status = typed("status", "s")
    assert (status.code, "train.lr" in status.out) == (0, True)
    assert typed("status").out == "s: 1 cell done, 1 cell failed\n"
    (again,) = [line.split("again: ")[1] for line in done.err.splitlines() if "again: " in line]
    assert "train.lr=1000000000.0" in again
    assert "sweep=s" in again
    count = len(built(ledger))
    assert typed(*DIVERGING).err.count(" 0 nodes built") == 1
    assert len(built(ledger)) == count == len(set(built(ledger))), "nothing is built twice"


def test_a_damaged_artifact_fails_its_cells_until_it_is_removed(typed, tmp_path, rows):
    """The same keys fail and recover: after the cause is gone the same command does only what is missing."""
    grid = [*GRID, TWO]
    assert typed("-m", *FILES, "mix=none", "sweep=s").code == 0
    assert typed(*grid[:-1], TWO, "mix.rows=6").code == 0
    ledger = Ledger(tmp_path / "outputs", "s")
    mixes = [event.node for event in ledger.events() if event.state == "built"]
    stage = {node.key: node.stage for node in ledger.nodes()}
    two = next(cell for cell in ledger.unique_cells() if cell.axes["source"] == "two")
    key = next(key for key in two.nodes if stage[key] == "mix")
    for name, gone in {"train": two.train, "collapse": two.suites["collapse"]}.items():  # as if never built
        shutil.rmtree(tmp_path / "outputs/artifacts" / name / str(gone))
    mix = tmp_path / "outputs/artifacts/mix" / key
    file = mix / "mix.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    done = typed(*grid, "mix.rows=6")
    assert done.code == 1
    assert "mix.parquet has" in done.err
    assert f"remove {mix.relative_to(tmp_path)}" in done.err
    assert "2 cells done, 1 cell failed" in typed("status").out
    assert typed("doctor").code == 1
    shutil.rmtree(mix)
    count = len(built(ledger))
    done = typed(*grid, "mix.rows=6")
    assert done.code == 0
    assert sorted(stage[key] for key in built(ledger)[count:]) == ["mix", "train"], (
        "the answers were there: scored before"
    )
    assert len(mixes) == len(set(mixes))
    assert "3 cells done" in typed("status").out


def test_the_printed_command_runs_that_cell_alone(typed, tmp_path, rows):
    """Quotes and brackets survive: the line can be pasted into a shell."""
    done = typed(*DIVERGING, "prompts.system='Be brief, please'")
    (line,) = [line.split("again: ")[1] for line in done.err.splitlines() if "again: " in line]
    name, *words = shlex.split(line)
    assert name == "synthdiv"
    again = typed("plan", *words)
    assert again.code == 0
    key = json.loads((tmp_path / "outputs/sweeps/s/cells.jsonl").read_text().splitlines()[1])["key"]
    assert key[:8] in again.out


def test_a_missing_device_fails_only_the_stages_that_need_it(typed, tmp_path, monkeypatch):
    """By what trains, answers, encodes and scores, before it begins; all else is done on the processor."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")  # a launch finds them, and the driver is broken
    write_files(tmp_path)
    words = [*FILES, sources("one"), "mix=single", "sweep=s"]
    assert typed(*words).code == 0
    artifacts = tmp_path / "outputs" / "artifacts"
    for stage in ("train", "likelihood", "generate", "tokens"):
        shutil.rmtree(artifacts / stage)
    done = typed(*words, "runtime.device=cuda:7")
    assert done.code == 1
    assert "Traceback" not in done.err
    ledger = Ledger(tmp_path / "outputs", "s")
    assert not list(ledger.folder.glob("events/*.traceback"))
    stages, states = {node.key: node.stage for node in ledger.nodes()}, ledger.states()
    failed = [event for event in states.values() if event.state == "failed"]
    assert {stages[event.node] for event in failed} == {"train", "likelihood", "generate"}
    assert all(event.note.startswith("runtime.device=cuda:7: torch finds cpu on this machine") for event in failed)
    recorded = [json.loads(path.read_text()) for path in artifacts.glob("generate/*/manifest.json")]
    assert recorded
    assert {session["device"] for each in recorded for session in each["sessions"]} == {"cpu"}
    shutil.rmtree(artifacts / "pretrain")
    assert "failed: pretrain" in typed(*words, "runtime.device=cuda").err
