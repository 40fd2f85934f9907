"""Real-label equivalents of a sweep: which arms are a curve, which measures have one, and what is paired."""

from __future__ import annotations

import math

import pytest

from synthdiv.core.types import Score
from synthdiv.views.report.arms import arms_of
from synthdiv.views.report.collect import CellRow
from synthdiv.views.report.cross_checks import NO_PAIRS, real_label_rows
from synthdiv.views.report.labels import Labels

SEEDS = (0, 1, 2)
RIGHT, DIVERSE = "downstream/task/acc", "reached/vendi_1"


def rows_of(mix, rows, accuracy, seeds=SEEDS, **axes):
    """The cells of an arm: a value above or below the accuracy in each replicate."""
    share, generators = (1.0, "n/a") if mix == "human" else (0.0, "toy")
    axes = {"mix": mix, "rows": rows, "student": "toy", "generators": generators, "real_share": share} | axes
    made = []
    for seed in seeds:
        right = Score(RIGHT, accuracy + (0.01, -0.01, 0.0)[seed], 50, unit="share", higher_is_better=True)
        scores = [right, Score(f"{RIGHT}-vanilla", 0.1, 50), Score(DIVERSE, 1.0 + seed, 50, higher_is_better=True)]
        by_name, arm = {score.name: score for score in scores}, f"{sorted(axes.items())}"
        made.append(CellRow(f"{arm}{seed}", arm, axes, {"train.seed": seed}, f"{arm}{seed}", "done", scores=by_name))
    return made


def table(*parts):
    arms = arms_of([row for part in parts for row in part])
    return real_label_rows(arms, [RIGHT, DIVERSE], Labels(arms))


HUMAN = [*rows_of("human", 100, 0.2), *rows_of("human", 200, 0.4), *rows_of("human", 400, 0.6)]


def test_a_level_beside_a_real_only_curve_has_its_labels_with_an_interval():
    """Whatever its rows and how its sources write; a measure of the fine-tuning set has no curve."""
    level = rows_of("single", 100, 0.5, **{"mix.level": 0.5, "mix.diversity.by": "selection"})
    other = rows_of("human", 100, 0.9, student="large"), rows_of("human", 800, 0.9, **{"train.epochs": "32"})
    (row,) = table(HUMAN, level, *other)
    assert (row["measure"], row["models"], row["note"]) == (RIGHT, 3, "no interval: the same in every replicate")
    assert row["real rows"] == pytest.approx(200 * math.sqrt(2))
    noisy = [*HUMAN[:3], *rows_of("human", 200, 0.42)[1:], HUMAN[3], *HUMAN[6:]]
    (row,) = table(noisy, level)
    assert row["note"] == ""
    assert row["95 %"].startswith("[2")


@pytest.mark.parametrize(
    ("human", "level", "note"),
    [
        (
            HUMAN,
            rows_of("single", 100, 0.8),
            "0.8 is outside of the real-only curve (0.2 at 100, 0.4 at 200, 0.6 at 400)",
        ),
        (HUMAN[:-1], rows_of("single", 100, 0.5, seeds=SEEDS[2:]), NO_PAIRS),
        (HUMAN[:3], rows_of("single", 100, 0.5), None),
    ],
)
def test_what_no_curve_gives_is_nan_with_its_reason(human, level, note):
    rows = table(human, level)
    assert [row["note"] for row in rows] == ([note] if note else []), "one arm is no curve"
    assert all(math.isnan(row["real rows"]) for row in rows)
