"""Effects of axes and their interactions: those of statsmodels, and what cannot be estimated is named."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from synthdiv.measures.factorial import factorial_effects

FACTORS = ("mix", "size", "student")


def grid(seed: int = 0, replicates: int = 4, **effect: float) -> dict[tuple[str, ...], list[float]]:
    random = np.random.default_rng(seed)
    shared = random.normal(size=replicates)
    return {
        (mix, size, student): [
            float(3 + shared[at] + random.normal(0, 0.1) + effect.get(mix, 0) + effect.get(f"{mix} {size}", 0))
            for at in range(replicates)
        ]
        for mix, size, student in itertools.product(("multi", "single"), ("l", "m", "s"), ("a", "b"))
    }


def test_effects_are_those_of_type_three_sums_of_squares() -> None:
    cells = grid(multi=0.3, **{"single l": 0.2})
    rows = [(*cell, str(at), value) for cell, values in cells.items() for at, value in enumerate(values)]
    frame = pandas.DataFrame(rows, columns=["mix", "size", "student", "replicate", "y"])
    fit = ols("y ~ C(replicate, Sum) + C(mix, Sum) * C(size, Sum) * C(student, Sum)", frame).fit()
    oracle: Any = anova_lm(fit, typ=3)["PR(>F)"].iloc[2:-1]
    made = factorial_effects(cells, FACTORS)
    assert [each.p for each in made] == pytest.approx(list(oracle))
    means = frame.groupby("mix")["y"].mean()
    assert made[0].name == "mix: multi − single"
    assert made[0].value == pytest.approx(means["multi"] - means["single"])
    interaction = next(each for each in made if each.name == "mix: multi − single × student: a − b")
    cell = frame.groupby(["mix", "student"])["y"].mean()
    assert interaction.value == pytest.approx(
        cell["multi", "a"] - cell["single", "a"] - cell["multi", "b"] + cell["single", "b"]
    )


def test_an_effect_that_the_cells_do_not_determine_is_named_and_not_fitted() -> None:
    cells = {cell: values for cell, values in grid(multi=0.3).items() if cell[:2] != ("single", "l")}
    made = {each.name: each for each in factorial_effects(cells, FACTORS)}
    missing = [name for name, each in made.items() if math.isnan(each.value)]
    assert missing == ["mix: multi − single × size", "mix: multi − single × size × student: a − b"]
    assert all("cannot be estimated" in made[name].note for name in missing)
    assert made["mix: multi − single"].value == pytest.approx(0.3, abs=0.15)


def test_an_axis_that_stands_for_another_one_is_not_estimated_twice() -> None:
    cells = {(mix, "l" if mix == "multi" else "s"): values[:3] for (mix, _, _), values in grid().items()}
    assert [math.isnan(each.value) for each in factorial_effects(cells, ("mix", "size"))] == [False, True, True]


def test_one_replicate_has_effects_and_no_test() -> None:
    cells = {cell: values[:1] for cell, values in grid(multi=0.3).items()}
    made = factorial_effects(cells, FACTORS)
    assert made[0].value == pytest.approx(0.3, abs=0.2)
    assert {each.note for each in made} == {"no replicates: no test"}
