"""The table: every number whole at any width, every note once."""

from __future__ import annotations

import math
import re

import pytest
from rich.console import Console

from synthdiv.core.types import Score
from synthdiv.views.measure.notes import Notes
from synthdiv.views.measure.output import label, show


def some_scores(shift: float = 0.0, note: str = "") -> list[Score]:
    return [
        Score("self_bleu_3@words", 34.51234 + shift, 80, 33.9 + shift, 35.1 + shift, "0-100", False),
        Score("distinct_2@words", 0.612345 + shift / 100, 80, 0.6, 0.62, "share", True, note),
        Score("a_very_long_name_of_a_measure@texts", math.nan, 0, unit="words", note="too few"),
    ]


def printed(groups: list[str], width: int, notes: list[str] | None = None) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        scores = {group: some_scores(place, notes[place] if notes else "") for place, group in enumerate(groups)}
        show(scores, dict.fromkeys(groups, 1234), ["above"], console)
        return console.export_text()


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 26])
def test_the_table_has_every_number_whole_at_any_width(count, width):
    text = printed([f"source {place}" for place in range(count)], width)
    assert max(map(len, text.splitlines())) <= width
    flat = text.replace(" ", "").replace("\n", "")
    for place in range(count):
        assert f"{34.51234 + place:.4g}" in text
        assert re.search(rf"\[{33.9 + place:.4g}, {35.1 + place:.4g}\]", text)
        assert f"source{place}" in flat
    assert text.count("too few") == 1
    assert "nan" not in text


def test_direction_unit_and_count_stand_with_the_measure():
    (line,) = (line for line in printed(["all"], 80).splitlines() if line.startswith("self_bleu"))
    assert line.split() == ["self_bleu_3@words", "↓", "34.51", "[33.9,", "35.1]", "0-100", "80"]
    (line,) = (line for line in printed(["all"], 80).splitlines() if line.startswith("distinct"))
    assert line.split()[1] == "↑"


def test_notes_that_differ_in_numbers_alone_are_one_with_ranges():
    text = printed(["a", "b", "c"], 200, ["12 of 30 prompts left out", "7 of 30 prompts left out", ""])
    assert text.count("left out") == 1
    assert "(2) 7–12 of 30 prompts left out" in text
    notes = Notes()
    assert [notes.mark("few; 3 in gpt-4-0613"), notes.mark(""), notes.mark("few")] == ["(1, 2)", "", "(1)"]
    assert notes.lines() == ["(1) few", "(2) 3 in gpt-4-0613"]


def test_names_of_groups_cannot_spoil_the_table():
    assert label("a\x1b[31m\tb\nc", 30) == "a [31m b c"
    assert label("Meta-Llama-3-8B-Instruct", 16) == "Meta-Llama-3-8B-\nInstruct"
    assert label("x" * 40, 16) == f"{'x' * 16}\n{'x' * 16}\n{'x' * 8}"
    assert len(label("word " * 1000, 1000)) == 80
    assert "[bold]" in printed(["[bold]", "[/]"], 80)
