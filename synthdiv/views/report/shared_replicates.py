"""The replicates that arms share, and what was measured in them: levels of whole sets, and values of prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.measures.estimates import VANILLA as GAP
from synthdiv.views.report.arms import Arm, independent
from synthdiv.views.report.collect import VANILLA, CellRow, finished, read_or
from synthdiv.views.report.common_texts import TEXTS, WITHIN, texts_differences

if TYPE_CHECKING:
    import numpy as np
    import pandas


def matched(arms: Sequence[Arm]) -> list[list[CellRow]]:
    """The replicates of a comparison: independent models of the first arm, each with the cell of every other arm whose
    seeds are equal where they apply to both. Other models have no partner and are left out."""
    replicates = []
    for row in independent(arms[0].rows):
        partners = [[other for other in arm.rows if same_seeds(row, other)] for arm in arms[1:]]
        if all(len(rows) == 1 for rows in partners):
            replicates.append([row, *(rows[0] for rows in partners)])
    fixed = [len({each[at].model for each in replicates}) < len(replicates) for at, arm in enumerate(arms)]
    vanilla = [arm.axes.get("mix") == VANILLA for arm in arms]
    return replicates[:1] if any(f and not v for f, v in zip(fixed, vanilla, strict=True)) else replicates


def same_seeds(one: CellRow, other: CellRow) -> bool:
    pairs = [(value, other.seeds.get(name, NOT_APPLICABLE)) for name, value in one.seeds.items()]
    return all(NOT_APPLICABLE in pair or pair[0] == pair[1] for pair in pairs)


def pool(
    rows: Sequence[list[CellRow]], level: np.ndarray, compared: Sequence[Arm], arms: Sequence[Arm], measure: str
) -> np.ndarray:
    """The levels (arms, replicates) of the arms `compared`, and of the other synthetic arms of their student that were
    launched first and have all replicates of the comparison, `rows`: an arm that is added later changes nothing."""
    import numpy as np

    student = [one for one in arms if one.axes.get("student") == compared[0].axes.get("student")]
    student = [one for one in student if one.axes.get("mix") not in ("human", VANILLA)]
    first, keys, levels = min(one.launch for one in student), [one.key for one in compared], [*level]
    for one in (each for each in student if each.key not in keys and each.launch == first):
        partners = [[other for other in one.rows if same_seeds(row[0], other)] for row in rows]
        scores = [each[0].scores.get(measure) for each in partners if len(each) == 1]
        values = [score.value for score in scores if score and math.isfinite(score.value)]
        models = {each[0].model for each in partners if each}
        levels += [np.array(values)] * (len(values) == len(models) == len(rows))
    return np.array(levels)


def differences(root: Path, rows: Sequence[list[CellRow]], measure: str, weights: np.ndarray) -> tuple[np.ndarray, int]:
    """The differences (prompts, replicates) on the prompts that all arms share, and how many; one row of differences of
    means where prompts change from replicate to replicate, of texts where the measure is of these, else of scores where
    there are no values of prompts, or arms share fewer than half of them.

    A difference to the vanilla student has the values of the measure itself, where that gives the same difference."""
    import numpy as np
    import pandas

    of_texts = measure.endswith(TEXTS) and not measure.endswith(WITHIN)
    if of_texts and (common := texts_differences(root, rows, measure, weights)):
        return common
    whole = (weights * np.array([[row.scores[measure].value for row in each] for each in rows]).T).sum(axis=0)[None]
    base = measure.removesuffix(GAP)
    parts = [[prompt_values(root, row, base) for row in each] for each in rows]
    if any(part is None for each in parts for part in each):
        return whole, 0
    columns = [pandas.concat(each, axis=1, join="inner") @ weights[:, at] for at, each in enumerate(parts)]
    table, least = pandas.concat(columns, axis=1, join="inner"), min(map(len, columns))
    fewest = min(0 if part is None else len(part) for each in parts for part in each)
    if 2 * least < fewest or (base != measure and not np.allclose([column.mean() for column in columns], whole)):
        return whole, 0
    if 2 * len(table) < least:
        return np.array([[column.mean() for column in columns]]), least
    return table.to_numpy(), len(table)


def prompt_values(root: Path, row: CellRow, measure: str) -> pandas.Series | None:
    """The value of each prompt, where their mean is the score."""
    path, score = finished(root, row.origin.get(measure, "")), row.scores.get(measure)
    for name, values in items(path).items() if path else ():
        if score and (measure == name or measure.endswith(f"/{name}")):
            values = values.dropna()
            return values if math.isclose(values.mean(), score.value, rel_tol=1e-6, abs_tol=1e-9) else None
    return None


@cache
def items(path: Path) -> dict[str, pandas.Series]:
    """By measure the mean of what a suite measured of each prompt, NaN where it is undefined; empty without any."""
    return read_or({}, path, mean_items)


def mean_items(path: Path) -> dict[str, pandas.Series]:
    import pandas

    frame = pandas.read_parquet(path / "items.parquet")
    if frame.empty:
        return {}
    frame["measure"] = frame["measure"].where(frame["decoding"] == "", frame["decoding"] + "/" + frame["measure"])
    means = frame.groupby(["measure", "prompt"])["value"].mean()
    return {str(name): values.droplevel(0) for name, values in means.groupby(level=0)}


@cache
def human_likelihoods(path: Path) -> pandas.Series:
    """The log-likelihood of each human answer under the student, nats; empty where it cannot be read."""
    import pandas

    return read_or(pandas.Series(dtype=float), path, log_likelihoods)


def log_likelihoods(path: Path) -> pandas.Series:
    import pandas

    return -pandas.read_parquet(path / "likelihood.parquet", columns=["id", "nll"]).set_index("id")["nll"]
