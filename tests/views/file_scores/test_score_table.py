"""The table: every number is complete at any width, and every note is listed once."""

from __future__ import annotations

import math
import re

import pytest

from synthdiv.core.types import Score
from synthdiv.views.file_scores.score_table import Notes, label, show_scores


def some_scores(shift: float = 0.0, note: str = "") -> list[Score]:
    return [
        Score("self_bleu_3@words", 34.51234 + shift, 80, 33.9 + shift, 35.1 + shift, "0-100", False),
        Score("distinct_2@words", 0.612345 + shift / 100, 80, 0.6, 0.62, "share", True, note),
        Score("a_very_long_name_of_a_measure@texts", math.nan, 0, unit="words", note="too few"),
    ]


@pytest.fixture
def printed(monkeypatch, capsys):
    def run(groups: list[str], width: int, notes: list[str] | None = None) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        scores = {group: some_scores(place, notes[place] if notes else "") for place, group in enumerate(groups)}
        show_scores(scores, dict.fromkeys(groups, 1234), ["above"])
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("count", [1, 2, 26])
def test_every_number_is_complete_at_any_width(count, width, printed):
    text = printed([f"source {place}" for place in range(count)], width)
    assert max(map(len, text.splitlines())) <= width
    for place in range(count):
        (line,) = (line for line in text.splitlines() if f" {34.51234 + place:.4g} " in line)
        assert re.search(rf"\[{33.9 + place:.4g}, {35.1 + place:.4g}\] +80", line)
        assert count == 1 or line.startswith(f"  source {place} ")
    assert text.count("too few") == 1
    assert text.count("1,234") == count
    assert "nan" not in text


def test_direction_unit_and_count_are_printed_with_the_measure(printed):
    lines = {line.split()[0]: line.split() for line in printed(["all"], 80).splitlines() if line.strip()}
    assert lines["self_bleu_3@words"] == ["self_bleu_3@words", "↓", "0-100", "34.51", "[33.9,", "35.1]", "80"]
    assert lines["distinct_2@words"][1:3] == ["↑", "share"]


def test_notes_that_differ_in_numbers_alone_are_one_with_ranges(printed):
    text = printed(["a", "b", "c"], 200, ["12 of 30 prompts left out", "7 of 30 prompts left out", ""])
    assert text.count("left out") == 1
    assert "7–12 of 30 prompts left out" in text
    notes = Notes()
    assert [notes.mark("few; 3 in gpt-4-0613"), notes.mark(""), notes.mark("few")] == ["(1, 2)", "", "(1)"]
    assert notes.lines() == ["(1) few", "(2) 3 in gpt-4-0613"]


def test_names_of_groups_are_cleaned_and_are_not_markup(printed):
    assert label("a\tb\nc") == "a b c"
    assert r"a\u001b[31mb" in printed(["a\x1b[31mb", "c"], 80)
    assert len(label("word " * 1000)) == 80
    assert "[bold]" in printed(["[bold]", "[/]"], 80)
    assert printed(["z" * 70, "b"], 80).count("z") == 70 * 4, "a long name continues on the next line"
