"""The order of the calls to a tracker; a run is always closed."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from synthdiv.core.ledger import CellRecord
from synthdiv.core.types import Score
from synthdiv.views.track.cell import Publishable, flat, title, track_cell

AXES = {"mix": "single", "source": "ada", "generators": "toy", "student": "n/a"}
CELL = CellRecord("0123456789abcdef", "arm", [], AXES, {"train.seed": 1}, {}, {}, {}, [], None, "")
SCORES = [Score("a", 1.0, 3, 0.5, 1.5), Score("b", 2.0, 3), Score("c", math.nan, 0, note="why")]


class Recorder:
    """Records its calls; the method `fails` raises."""

    def __init__(self, fails: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails

    def __getattr__(self, verb: str) -> Any:
        def call(*arguments: Any) -> None:
            self.calls.append((verb, *arguments))
            if verb == self.fails:
                raise RuntimeError(verb)

        return call


def test_a_cell_is_five_calls(tmp_path: Path) -> None:
    tracker = Recorder()
    results = Publishable([{"step": 1, "loss": 2.0}], SCORES, [{"prompt": "p"}], {"training/tokens": 5.0})
    assert track_cell(tracker, "s" * 80, CELL, results, tmp_path)
    assert tracker.calls == [
        ("begin", CELL.key, "single ada toy 01234567", "arm", ["s" * 64], AXES | CELL.seeds),
        ("curve", [{"step": 1, "loss": 2.0}]),
        ("summary", {"training/tokens": 5.0, "a": 1.0, "a/low": 0.5, "a/high": 1.5, "a/n": 3.0, "b": 2.0, "b/n": 3.0}),
        ("table", "samples", [{"prompt": "p"}]),
        ("finish", 0),
    ]


def test_the_vanilla_student_has_no_curve(tmp_path: Path) -> None:
    tracker = Recorder()
    track_cell(tracker, "s", CELL, Publishable([], SCORES), tmp_path)
    assert [call[0] for call in tracker.calls] == ["begin", "summary", "finish"]


@pytest.mark.parametrize("verb", ["begin", "curve", "summary", "table"])
def test_a_failure_closes_the_run_as_failed(tmp_path: Path, verb: str) -> None:
    tracker = Recorder(fails=verb)
    with pytest.raises(RuntimeError, match=verb):
        track_cell(tracker, "s", CELL, Publishable([{"step": 1}], SCORES, [{"prompt": "p"}]), tmp_path / "published")
    assert tracker.calls[-1] == ("finish", 1)
    again = Recorder()
    assert track_cell(again, "s", CELL, Publishable(), tmp_path / "published")
    assert again.calls[-1] == ("finish", 0)


def test_a_cell_is_written_once(tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    assert track_cell(first, "s", CELL, Publishable(), tmp_path / "published")
    assert not track_cell(second, "s", CELL, Publishable(), tmp_path / "published")
    assert first.calls
    assert not second.calls


def test_undefined_scores_and_missing_ends_are_omitted() -> None:
    assert flat([SCORES[2]]) == {}
    assert flat([Score("z", 0.0, 2)]) == {"z": 0.0, "z/n": 2.0}


def test_the_title_omits_axes_that_do_not_apply() -> None:
    assert title(dataclasses.replace(CELL, axes={"mix": "none", "generators": "n/a"})) == "none 01234567"
