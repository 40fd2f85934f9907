"""Verdicts of judges on the answers of several authors, from artifacts to the arrays that measures take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import Artifact
from synthdiv.evaluate.judged import NO_PANEL, Groups, order_estimates, problem_estimates, rating_measure
from synthdiv.evaluate.rubric import Rubric
from synthdiv.evaluate.suite import item
from synthdiv.evaluate.verdicts import read_verdicts
from synthdiv.measures.agreement import MIN_DISCRIMINATION
from synthdiv.measures.estimates import VANILLA, Estimate, Measure, mean_of
from synthdiv.measures.pairwise import COVARIATES, Pairs, author_scores, missing_pairs, strengths, usable
from synthdiv.measures.self_preference import (
    over_baseline,
    self_bias,
    votes_at_equal_quality,
    votes_at_equal_quality_and_length,
)
from synthdiv.measures.words import words
from synthdiv.prompts.prompt_set import read_prompts

CHANCE = 0.5  # a discrimination
CONSISTENCY = ("discrimination", "position_bias", "flips", "ties")  # defined for a student that cannot judge, too
OF_DIFFERENCES = 2**0.5  # standard deviations of lengths: that of differences between independent ones
Row = dict[str, Any]
Pair = tuple[str, str, str]  # prompt id, first and second author
Text = tuple[str, str]  # prompt id and author
Estimates = dict[str, Estimate]
Gains = dict[str, tuple[float, int]]  # by prompt id: nats per byte, and bytes
GAIN = Measure("", "nats per byte", None, "no text", caution="compare authors: fine-tuning can raise all of them")


@dataclass
class Votes:
    """What one judge says: of a pair P(first author wins) when it is shown first and when it is shown second, of a
    text its rating; NaN where there is no verdict. `lengths` are those of the rated texts, in words, `rubrics` what was
    asked, and `rows` by rubric the verdicts by prompt id."""

    pairs: dict[Pair, list[float]] = field(default_factory=dict)
    ratings: dict[Text, float] = field(default_factory=dict)
    lengths: dict[Text, int] = field(default_factory=dict)
    rubrics: dict[str, Rubric] = field(default_factory=dict)
    rows: dict[str, Groups] = field(default_factory=dict)

    def add(self, artifact: Artifact, authors: Sequence[str]) -> None:
        """Take the verdicts of an artifact; `authors` are the names of its authors."""
        judge_prompts = artifact.inputs["prompts"]
        prompts = read_prompts(judge_prompts, judge_prompts.stage.split.value)
        rubric: Rubric = judge_prompts.stage.rubric
        self.rubrics[rubric.name] = rubric
        groups = self.rows.setdefault(rubric.name, {})
        for prompt, row in zip(prompts, read_verdicts(artifact), strict=True):
            first, key = authors[prompt["first"]], prompt["prompt_id"]
            groups.setdefault(key, []).append(row)
            if prompt["second"] < 0:
                self.ratings[key, first] = row["value"]
                self.lengths[key, first] = len(words(prompt["response"]))
            else:
                pair = self.pairs.setdefault((key, first, authors[prompt["second"]]), [math.nan, math.nan])
                pair[row["order"]] = row["value"]

    def among(self, authors: Iterable[str]) -> list[Pair]:
        """The pairs of two of these authors."""
        names = {*authors}
        return [pair for pair in self.pairs if {pair[1], pair[2]} <= names]

    def orders(self, authors: Iterable[str]) -> np.ndarray:
        """The verdicts on the pairs of these authors: (pairs, orders)."""
        return np.array([self.pairs[pair] for pair in self.among(authors)], dtype=float).reshape(-1, 2)

    def problems(self, judge: str) -> Estimates:
        """The share of judge prompts without a verdict, and the probability that the options had."""
        by_rubric = [problem_estimates(name, {judge: groups}) for name, groups in self.rows.items()]
        return {each.measure.name: each for estimates in by_rubric for each in estimates}

    def by_order(self, prefix: str, judge: str, fixed: Sequence[str]) -> Estimates:
        """What depends on the order of the texts, of the pairs of the fixed authors."""
        estimates = order_estimates(self.orders(fixed), [prompt for prompt, *_ in self.among(fixed)])
        return {f"{prefix}{each.measure.name}/{judge}": each for each in estimates}

    def items(self, name: str, ratings: bool = True) -> Iterator[Row]:
        """Every verdict, those without a value too."""
        for (prompt, first, second), values in self.pairs.items():
            for order, value in enumerate(values):
                yield item(prompt, f"{name}/{first}>{second}", value, order=order)
        for (prompt, author), value in self.ratings.items() if ratings else ():
            yield item(prompt, f"{name}/{author}", value)


def pairs_among(authors: Iterable[str], judge: Votes, panel: Sequence[Votes], lengths: Mapping[Text, float]) -> Pairs:
    """The pairs of these authors with the verdict of the judge, the mean of the panel, and the differences of quality
    (the mean rating by the panel) and of `lengths`.

    A pair has a verdict where the judge gave one in both orders: a verdict in one order has the position in it.
    """
    keys = judge.among(authors)

    def gaps(values: Mapping[Text, float]) -> np.ndarray:
        pairs = ((values.get((key, one), math.nan), values.get((key, other), math.nan)) for key, one, other in keys)
        return np.array([a - b for a, b in pairs], dtype=float)

    def wins(one: Votes) -> np.ndarray:
        return np.array([sum(one.pairs[key]) / 2 if key in one.pairs else math.nan for key in keys], dtype=float)

    nothing = np.full(len(keys), math.nan)
    prompts, first, second = np.array(keys, dtype=str).reshape(-1, 3).T
    quality = np.mean([gaps(each.ratings) for each in panel] or [nothing], axis=0)
    votes = np.mean([wins(each) for each in panel] or [nothing], axis=0)
    return Pairs(prompts, first, second, wins(judge), votes, gaps(lengths), quality)


def standardised(lengths: Mapping[Text, int], authors: Iterable[str]) -> dict[Text, float]:
    """Lengths in units of their standard deviation over the texts of these authors. Where that is 0, texts of the
    length that they all have are 0, and others NaN."""
    names = {*authors}
    sizes = [length for (_, author), length in lengths.items() if author in names] or [0]
    if scale := float(np.std(sizes)):
        return {text: length / scale for text, length in lengths.items()}
    return {text: 0.0 if length == sizes[0] else math.nan for text, length in lengths.items()}


def pair_estimates(
    judge: Votes, before: Votes | None, panel: Sequence[Votes], fixed: list[str], extra: list[str], seed: int
) -> tuple[Estimates, str, list[Pair]]:
    """What pairs say of a judge: its estimates by name, with their differences from the judge `before` fine-tuning; why
    the latter cannot judge, or ""; and the pairs without a verdict in both orders.

    The numbers of the `fixed` authors come from pairs of these alone, and those of each of `extra` from pairs of it and
    these, so that none depends on which other authors an arm has.
    """
    lengths = standardised(judge.lengths, fixed)
    pairs = pairs_among(fixed, judge, panel, lengths)
    levels = fixed_estimates(pairs, judge.orders(fixed), fixed, seed)
    actual, missing, reason = dict(levels), missing_pairs(pairs), unable(pairs, levels)
    if before:
        others, orders = pairs_among(fixed, before, panel, lengths), (judge.orders(fixed), before.orders(fixed))
        base = fixed_estimates(others, orders[1], fixed, seed)
        reason = unable(others, base)
        if (pairs.wins - others.wins != pairs.wins - others.wins).any():  # a difference is of what both have judged
            levels, base = (
                fixed_estimates(replace(each, wins=each.wins + 0 * other.wins), order + 0 * more, fixed, seed)
                for each, other, order, more in ((pairs, others, *orders), (others, pairs, *orders[::-1]))
            )
        gaps = {name: each for name, each in levels.items() if not name.startswith("panel")}
        actual |= {f"{name}{VANILLA}": each.minus(base[name]) for name, each in gaps.items()}
    for author in extra:
        pairs = pairs_among([*fixed, author], judge, panel, lengths)
        actual |= win_rates(pairs, [author]) | bias_estimates(pairs, author, seed)
        missing += missing_pairs(pairs)
    return actual, reason, sorted({(str(prompt), one, other) for prompt, one, other in missing})


def win_rates(pairs: Pairs, authors: Sequence[str]) -> Estimates:
    """The win rates of these authors by the judge, and by the panel: texts that win by both may be better."""
    sides = {"wins": pairs, "panel_wins": replace(pairs, wins=pairs.panel)}
    scores = {name: author_scores(side) for name, side in sides.items()}
    return {f"{name}/{author}": each[author] for name, each in scores.items() for author in authors}


def wins_by(judge: str, votes: Votes, fixed: list[str], extra: list[str]) -> Estimates:
    """The win rates of the authors by a judge that is in no panel, from the pairs of `pair_estimates`, and what depends
    on the order."""
    pairs = {author: pairs_among(dict.fromkeys((*fixed, author)), votes, [], {}) for author in (*fixed, *extra)}
    wins = {f"wins/{author}/{judge}": author_scores(each)[author] for author, each in pairs.items()}
    return wins | votes.by_order("", judge, fixed)


def unable(pairs: Pairs, estimates: Estimates) -> str:
    """Why the judge of these pairs, the vanilla student, is not known to judge: its discrimination is below
    `MIN_DISCRIMINATION`, or its interval does not exclude chance. "" where it can, and without a panel, where win rates
    only describe."""
    score = estimates["discrimination"].score()
    able, low = score.value, 1.0 if score.value == 1 else score.low  # on its bound there is no interval
    if len(pairs.wins) and np.isnan(pairs.wins).all():
        return "not measurable: the vanilla student gave no verdict on any pair in both orders"
    if able < MIN_DISCRIMINATION:
        return (
            f"not measurable: the vanilla student cannot judge (discrimination {able:.2f}, below {MIN_DISCRIMINATION})"
        )
    if np.isnan(pairs.panel).all():
        return ""
    if not low > CHANCE:
        ends = f"{able:.2f} [{low:.2f}, {score.high:.2f}]"
        return f"not measurable: the vanilla student is not known to judge (discrimination {ends}, chance {CHANCE})"
    return ""


def fixed_estimates(pairs: Pairs, orders: np.ndarray, authors: list[str], seed: int) -> Estimates:
    """The estimates of the authors, and those of the judge: its terms of length and quality beside those of the panel,
    what it discriminates, how it depends on the order, of pairs with a verdict in both orders."""
    actual = win_rates(pairs, pairs.authors)
    for author in authors:
        actual |= bias_estimates(pairs, author, seed)
    *_, slope, able = self_bias(pairs, authors[0], COVARIATES, seed)
    actual |= {"quality_slope": slope, "discrimination": able}
    for name, wins in (("term", pairs.wins), ("panel_term", pairs.panel)):
        terms = strengths(replace(pairs, wins=wins), COVARIATES, seed)
        actual |= {f"{name}/{each}": terms[each] for each in COVARIATES}
    consistency = order_estimates(orders, pairs.prompt.tolist())
    return actual | {each.measure.name: each for each in consistency}


def bias_estimates(pairs: Pairs, author: str, seed: int) -> Estimates:
    """The biases of a judge toward an author."""
    bias, scaled, *_ = self_bias(pairs, author, COVARIATES, seed)
    used = int(usable(pairs, (*COVARIATES, "panel")).sum())
    note = f"{used} of {len(pairs.wins)} pairs have a verdict, a panel's and ratings" * (used < len(pairs.wins))
    return {
        f"bias/{author}": bias.with_note(note),
        f"bias_per_quality/{author}": scaled.with_note(note),
        f"votes_at_equal_quality/{author}": votes_at_equal_quality(pairs, author),
        f"votes_at_equal_quality_and_length/{author}": votes_at_equal_quality_and_length(
            pairs, author, OF_DIFFERENCES, seed
        ),
        f"over_baseline/{author}": over_baseline(pairs, author),
    }


def blocked(name: str, estimate: Estimate, reason: str) -> Estimate:
    """The estimate, undefined for this reason unless it is of the panel or defined for any judge."""
    free = name.startswith("panel") or name.removesuffix(VANILLA) in CONSISTENCY
    return replace(estimate, value=math.nan, reason=reason) if reason and not free else estimate


def without_panel(name: str, estimate: Estimate) -> Estimate:
    """The estimate, undefined for lack of a panel if it needs one."""
    free = name.startswith(("wins/", "rating/")) or name.removesuffix(VANILLA) in CONSISTENCY[1:]
    return estimate if free else replace(estimate, value=math.nan, reason=NO_PANEL, note="")


def author_ratings(
    judge: Votes, before: Votes | None, panel: Sequence[Votes], rubric: str, fixed: list[str], extra: list[str]
) -> Estimates:
    """The mean rating of each author by a judge and by the panel, and of the `fixed` authors the difference from the
    judge `before` fine-tuning."""
    measure, prompts = rating_measure(judge.rubrics[rubric], ""), dict.fromkeys(prompt for prompt, _ in judge.ratings)
    actual = dict[str, Estimate]()
    for author in (*fixed, *extra):

        def ratings(one: Votes, author: str = author) -> list[float]:
            return [one.ratings.get((prompt, author), math.nan) for prompt in prompts]

        actual[f"rating/{author}"] = mean_of(measure, ratings(judge))
        if panel:
            means = [sum(each) / len(panel) for each in zip(*map(ratings, panel), strict=True)]
            actual[f"panel_rating/{author}"] = mean_of(measure, means)
        if before and author in fixed:
            gap = actual[f"rating/{author}"].minus(mean_of(measure, ratings(before)))
            actual[f"rating/{author}{VANILLA}"] = gap
    return actual


def gains_by_author(after: list[Row], before: list[Row], authors: Sequence[str]) -> dict[str, Gains]:
    """By how much fine-tuning raised the log-likelihood of each text; NaN for an empty one."""
    gains: dict[str, Gains] = {author: {} for author in authors}
    for one, other in zip(after, before, strict=True):
        size = one["bytes"]
        gains[authors[one["order"]]][one["id"]] = ((other["nll"] - one["nll"]) / size if size else math.nan, size)
    return gains


def likelihood_estimates(gains: Mapping[str, Gains], fixed: list[str], author: str) -> Estimates:
    """The mean gain of each author, and that of `author` beyond the mean of the other `fixed` authors: differences from
    the vanilla student."""
    prompts = dict.fromkeys(prompt for each in gains.values() for prompt in each)
    units = {name: np.array([each.get(key, (math.nan, 0))[0] for key in prompts]) for name, each in gains.items()}
    others = [units[name] for name in fixed if name != author]
    values = {f"likelihood/{name}": each for name, each in units.items()}
    values["likelihood_own"] = units[author] - np.mean(others, axis=0)
    return {f"{name}{VANILLA}": replace(mean_of(GAIN, each), difference=True) for name, each in values.items()}
