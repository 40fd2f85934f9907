"""The replicates that arms share, and how they differ in them: levels of whole sets, and values of prompts. Those of
`@texts` measures are on the first prompts where both arms have a long answer, and again at half the length where arms
pass over different shares of the prompts: what remains is then a selection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from synthdiv.core.lazy import np
from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.evaluate.respond import grouped, responses
from synthdiv.evaluate.suite import declared
from synthdiv.generate.generate import read_samples
from synthdiv.measures.budgets import SELECTED, TextBudget, texts_gaps
from synthdiv.measures.estimates import VANILLA as GAP
from synthdiv.measures.estimates import join_notes
from synthdiv.measures.replicates import Effect
from synthdiv.measures.word_arm import WordArm
from synthdiv.views.layout import number
from synthdiv.views.report.arms import Arm, independent
from synthdiv.views.report.collect import VANILLA, CellRow, finished, manifest, read_or

if TYPE_CHECKING:
    import pandas

TEXTS, WITHIN = "@texts", "_within@texts"
SELECTION = "selected: the shares of prompts passed over differ by"
Rows = Sequence[Sequence[CellRow]]
Texts = dict[str, list[str]]


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


def differences(root: Path, rows: Sequence[list[CellRow]], measure: str, weights: np.ndarray) -> tuple[np.ndarray, int]:
    """The differences (prompts, replicates) on the prompts that all arms share, and how many; one row of differences of
    means where prompts change from replicate to replicate, of texts where the measure is of these, else of scores where
    there are no values of prompts, or arms share fewer than half of them.

    A difference to the vanilla student has the values of the measure itself, where that gives the same difference."""
    of_texts = measure.endswith(TEXTS) and not measure.endswith(WITHIN)
    if of_texts and (common := texts_differences(root, rows, measure, weights)):
        return common
    whole = (weights * np.array([[row.scores[measure].value for row in each] for each in rows]).T).sum(axis=0)[None]
    base = measure.removesuffix(GAP)
    parts = [[prompt_values(root, row, base) for row in each] for each in rows]
    if any(part is None for each in parts for part in each):
        return whole, 0
    columns = [side_by_side(each) @ weights[:, at] for at, each in enumerate(parts)]
    table, least = side_by_side(columns), min(map(len, columns))
    fewest = min(0 if part is None else len(part) for each in parts for part in each)
    if 2 * least < fewest or (base != measure and not np.allclose([column.mean() for column in columns], whole)):
        return whole, 0
    if 2 * len(table) < least:
        return np.array([[column.mean() for column in columns]]), least
    return table.to_numpy(), len(table)


def side_by_side(columns: Sequence[pandas.Series]) -> pandas.DataFrame:
    """The values of prompts that all columns have. Most have the same, which pandas takes long to see."""
    import pandas

    if all(column.index.equals(columns[0].index) for column in columns[1:]):
        return pandas.DataFrame(np.array(columns).T, index=columns[0].index)
    return pandas.concat(columns, axis=1, join="inner")


def prompt_values(root: Path, row: CellRow, measure: str) -> pandas.Series | None:
    """The value of each prompt, where their mean is the score."""
    score = row.scores.get(measure)
    return score and values_of_score(root, row.origin.get(measure, ""), measure, score.value)


@cache
def values_of_score(root: Path, suite: str, measure: str, mean: float) -> pandas.Series | None:
    path = finished(root, suite)
    for name, values in items(path).items() if path else ():
        if measure == name or measure.endswith(f"/{name}"):
            values = values.dropna()
            return values if math.isclose(values.mean(), mean, rel_tol=1e-6, abs_tol=1e-9) else None
    return None


def forget() -> None:
    """Drop the values of prompts that were read: those of 10,000 cells fill the memory."""
    for read in (values_of_score, items, human_likelihoods):
        read.cache_clear()


@cache
def items(path: Path) -> dict[str, pandas.Series]:
    """By measure the mean of what a suite measured of each prompt, NaN where it is undefined; empty without any."""
    return read_or({}, path, mean_items, "items.parquet")


def mean_items(path: Path) -> dict[str, pandas.Series]:
    import pandas

    frame = pandas.read_parquet(path / "items.parquet")
    if frame.empty:
        return {}
    frame["measure"] = frame["measure"].where(frame["decoding"] == "", frame["decoding"] + "/" + frame["measure"])
    means = frame.groupby(["measure", "prompt"])["value"].mean()
    return {str(name): values.droplevel(0) for name, values in means.groupby(level=0)}


@cache
def human_likelihoods(path: Path | None) -> pandas.Series:
    """The log-likelihood of each human answer under the student, nats; empty where it cannot be read."""
    import pandas

    def read(path: Path) -> pandas.Series:
        return -pandas.read_parquet(path / "likelihood.parquet", columns=["id", "nll"]).set_index("id")["nll"]

    return read_or(pandas.Series(dtype=float), path, read)


def texts_differences(
    root: Path, rows: Rows, measure: str, weights: np.ndarray, half: bool = False
) -> tuple[np.ndarray, int] | None:
    """The differences (1, replicates) of the first arm and the weighted others, and the fewest texts that two arms
    share; NaN where these are too few. None where answers are absent, or their suite does not say which they are."""
    values, fewest, (decoding, _, name) = np.zeros((1, len(rows))), [], measure.rpartition("/")
    inputs = [each.format(decoding) for each in declared([rows[0][0].suites.get(measure, "")], "paired_answers")]
    for at, each in enumerate(rows):
        suites = [finished(root, row.origin.get(measure, "")) for row in each]
        for place in np.flatnonzero(weights[1:, at]) + 1:
            pair = (suites[0], suites[place])
            gaps = all(suites) and inputs and texts_gaps_of(*pair, inputs[0], name.endswith(WITHIN), half)
            if not gaps or name not in gaps:
                return None
            values[0, at] -= weights[place, at] * gaps[name][0]
            fewest.append(gaps[name][1])
    return values, min(fewest)


@lru_cache(maxsize=4096)
def texts_gaps_of(one: Path, other: Path, name: str, within: bool, half: bool) -> dict[str, tuple[float, int]]:
    """By measure the difference of two suites and its texts; empty where one has no answers."""
    answers, others = answers_of(one, name), answers_of(other, name)
    if not (shared := [key for key in answers if key in others]):
        return {}
    budget = TextBudget(**{field.name: manifest(one)["fields"][field.name] for field in fields(TextBudget)})
    most, budget = None if within else 1, replace(budget, length=max(budget.length // (1 + half), 1))
    first, second = (WordArm([texts[key][:most] for key in shared], intervals=False) for texts in (answers, others))
    return {gap.measure.name: (gap.value, gap.n) for gap in texts_gaps(first, second, budget)}


@lru_cache(maxsize=32)
def answers_of(suite: Path, name: str) -> Texts:
    """The answers in this input of a suite, by prompt in one order; none where they are absent or damaged."""
    taken = manifest(suite).get("inputs", {}).get(name, {}).get("key", "-")
    return read_or(Texts(), finished(suite.parents[2], taken), lambda path: responses(grouped(read_samples(path))))


def checked_at_half(root: Path, rows: Rows, measure: str, weights: np.ndarray, result: Effect) -> Effect:
    """The effect, marked where the shares of prompts passed over differ. Its error is infinite, so that nothing is
    shown, where the sign is another one at half the length."""
    passed = f"{measure.rpartition('/')[0]}/passed_over{WITHIN if measure.endswith(WITHIN) else TEXTS}"
    scores = ((row.scores.get(passed) for row in each) for each in rows)
    shares = np.array([[score.value if score else math.nan for score in each] for each in scores])
    apart = abs(float((weights * shares.T).sum(axis=0).mean()))
    if not (measure.endswith(TEXTS) and apart > SELECTED):
        return result
    again = texts_differences(root, rows, measure, weights, half=True)
    value, outcome = float(again[0].mean()) if again else math.nan, "the same sign at half the length"
    if not result.value * value > 0:
        result = replace(result, error=result.error + math.inf, parts=())
        outcome = f"not shown: {number(result.value)}, but {number(value)} at half the length"
    return replace(result, note=join_notes(f"{SELECTION} {apart:.2f}; {outcome}", result.note))
