"""The order of the calls to a tracker; a run is always closed, and written again only where there is more."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from synthdiv.core.ledger import CellRecord
from synthdiv.core.types import Score
from synthdiv.views.track.cell import Publishable, flat, prompt_table, publishable, title, track_cell
from synthdiv.views.track.publish import track_report
from tests.views.report.conftest import Study

AXES = {"mix": "single", "source": "ada", "generators": "toy", "student": "llama_8b"}
CELL = CellRecord("0123456789abcdef", "arm", [], AXES, {"train.seed": 1}, {}, {}, {}, [], None, "")
SCORES = [Score("a", 1.0, 3, 0.5, 1.5, role="headline"), Score("b", 2.0, 3), Score("c", math.nan, 0, note="why")]
ROWS = [
    {"name": "a", "value": 1.0, "low": 0.5, "high": 1.5, "n": 3, "unit": "", "role": "headline", "note": ""},
    {"name": "b", "value": 2.0, "low": None, "high": None, "n": 3, "unit": "", "role": "", "note": ""},
    {"name": "c", "value": None, "low": None, "high": None, "n": 0, "unit": "", "role": "", "note": "why"},
]


class Recorder:
    """Records its calls; the method `fails` raises."""

    project, place = "eggs", Path("offline-run-1")

    def __init__(self, fails: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails

    def __getattr__(self, verb: str) -> Any:
        def call(*arguments: Any) -> None:
            self.calls.append((verb, *arguments))
            if verb == self.fails:
                raise RuntimeError(verb)

        return call


def test_a_cell_is_a_run_with_headlines_tables_and_curve(tmp_path: Path) -> None:
    tracker, made_by = Recorder(), {"commit": "c0ffee"}
    results = Publishable(
        [{"step": 1, "loss": 2.0}], SCORES, {"samples": [{"prompt": "p"}]}, {"training/tokens": 5.0}, made_by
    )
    assert track_cell(tracker, ["s" * 80, "t"], CELL, results, tmp_path)
    config = AXES | CELL.seeds | made_by
    assert tracker.calls == [
        (
            "begin",
            CELL.key,
            "single · ada → llama_8b · seed 1",
            "single · ada → llama_8b · arm",
            ["s" * 64, "t"],
            config,
            "cell",
        ),
        ("curve", [{"step": 1, "loss": 2.0}]),
        ("summary", {"training/tokens": 5.0, "a": 1.0, "a/low": 0.5, "a/high": 1.5, "a/n": 3.0}),
        ("table", "samples", [{"prompt": "p"}]),
        ("table", "scores", ROWS),
        ("finish", 0),
    ]


def test_the_vanilla_student_has_no_curve(tmp_path: Path) -> None:
    tracker = Recorder()
    track_cell(tracker, ["s"], CELL, Publishable([], SCORES[:1]), tmp_path)
    assert [call[0] for call in tracker.calls] == ["begin", "summary", "table", "finish"]


@pytest.mark.parametrize("verb", ["begin", "curve", "summary", "table"])
def test_a_failure_closes_the_run_as_failed(tmp_path: Path, verb: str) -> None:
    tracker, results = Recorder(fails=verb), Publishable([{"step": 1}], SCORES, {"samples": [{"prompt": "p"}]})
    with pytest.raises(RuntimeError, match=verb):
        track_cell(tracker, ["s"], CELL, results, tmp_path / "published")
    assert tracker.calls[-1] == ("finish", 1)
    again = Recorder()
    assert track_cell(again, ["s"], CELL, results, tmp_path / "published")
    assert again.calls[-1] == ("finish", 0)


def test_a_cell_is_written_once_and_again_where_there_is_more_of_it(tmp_path: Path) -> None:
    first, second, third, fourth = (Recorder() for _ in range(4))
    assert track_cell(first, ["s"], CELL, Publishable(), tmp_path, failed=True)
    assert first.calls[-1] == ("finish", 1), "a failed cell is a run that failed"
    assert not track_cell(second, ["s"], CELL, Publishable(), tmp_path, failed=True)
    assert not second.calls
    assert track_cell(third, ["s"], CELL, Publishable(scores=SCORES), tmp_path)
    assert [call[:2] for call in third.calls[:2]] == [("remove", "offline-run-1"), ("begin", CELL.key)]
    assert track_cell(fourth, ["s", "another sweep"], CELL, Publishable(scores=SCORES), tmp_path)


def test_undefined_scores_and_missing_ends_are_omitted() -> None:
    assert flat([SCORES[2]]) == {}
    assert flat([Score("z", 0.0, 2)]) == {"z": 0.0, "z/n": 2.0}


@pytest.mark.parametrize(
    ("axes", "name"),
    [
        ({"mix": "none", "generators": "n/a", "student": "toy"}, "vanilla → toy · seed 1"),
        ({"mix": "multi", "source": "n/a", "generators": "small", "student": "8B"}, "multi · small → 8B · seed 1"),
    ],
)
def test_the_title_omits_axes_that_do_not_apply(axes: dict[str, str], name: str) -> None:
    assert title(dataclasses.replace(CELL, axes=axes)) == name


def test_a_finished_cell_comes_with_its_files_versions_and_scores_by_prompt(tmp_path: Path) -> None:
    study = Study(tmp_path)
    results = publishable(tmp_path, study.cell("multi", 2.0))
    assert [(files.kind, sorted(files.files)) for files in results.artifacts] == [
        ("report", ["items.parquet", "scores.json"]), ("report", ["items.parquet", "scores.json"]), ("model", [])
    ]  # fmt: skip
    assert {files.metadata["stage"] for files in results.artifacts} == {"collapse", "truth", "train"}
    assert results.made_by["version.synthdiv"]
    assert "host" not in json.dumps(results.made_by)
    assert results.tables["prompts"] == [{"id": "p0", "nll_2": 2.0, "x": 1.0}]


def test_scores_by_prompt_are_means_of_answers_and_what_is_undefined_is_empty(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    from synthdiv.evaluate.suite import item

    rows = [item("q", "a", 1.0), item("q", "a", 2.0, sample=1), item("p", "b", math.nan, decoding="plain")]
    folder = tmp_path / "artifacts" / "suite" / "key"
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "items.parquet")
    (folder / "manifest.json").write_text('{"files": {}}')
    assert prompt_table([folder], 9) == [
        {"id": "p", "a": None, "plain/b": None},
        {"id": "q", "a": 1.5, "plain/b": None},
    ]
    assert prompt_table([folder], 1) == [{"id": "p", "a": None, "plain/b": None}]


def test_no_folder_of_the_machine_is_in_what_is_sent(tmp_path: Path) -> None:
    axes = AXES | {"prompts.table.path": "'/home/alice/private/prompts.jsonl'", "student.checkpoint.path": "C:/x/model"}
    tracker = Recorder()
    track_cell(tracker, ["s"], dataclasses.replace(CELL, axes=axes), Publishable(), tmp_path)
    config = tracker.calls[0][5]
    assert (config["prompts.table.path"], config["student.checkpoint.path"]) == ("prompts.jsonl", "model")
    report = tmp_path / "reports"
    report.mkdir()
    (report / "arms.csv").write_text("arm,prompts.table.path\na,/home/alice/private/prompts.jsonl\n")
    track_report(tracker, "eggs", report, tmp_path / "published")
    assert "alice" not in repr(tracker.calls)
