"""The answer of a sweep: its claims, each with a verdict, or where there are none the primary comparisons; and what a
launch can detect."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from synthdiv.core.lazy import np
from synthdiv.core.ledger import CellRecord, Ledger
from synthdiv.core.types import ConfigError
from synthdiv.measures.estimates import join_notes
from synthdiv.measures.intervals import Ends
from synthdiv.measures.multiplicity import HOLM, adjusted
from synthdiv.measures.replicates import (
    ALPHA,
    ENOUGH,
    Effect,
    detectable,
    expected,
    power_of_equivalence,
    smallest_margin,
)
from synthdiv.study.claims import EXCESS, EXPLORATORY, DeclaredClaim, Direction, declared
from synthdiv.views.layout import interval, number, plural
from synthdiv.views.report.arms import Arm, arms_of, text_of, value_of
from synthdiv.views.report.collect import VANILLA, CellRow, collect, vanilla_cells
from synthdiv.views.report.comparisons import Comparison, comparisons
from synthdiv.views.report.contrasts import DESCRIBED, NOT_SHOWN, SHOWN, UNDEFINED, Contrast, contrast, contrasts
from synthdiv.views.report.heat import shown_headlines
from synthdiv.views.report.labels import Labels, labelled
from synthdiv.views.report.pools import SweepArms
from synthdiv.views.report.shared_replicates import differences, matched

REFUTED = "the opposite is shown"
NOT_COMPARED = "this sweep has no arm with several sources beside its singles, and declares no claim"
NO_MARGIN = "no margin: no human and vanilla arms with this measure are equal to these on all other axes"
MOST = 100  # comparisons whose verdicts the terminal counts where none is primary
LINES = 20  # of comparisons on a terminal; claims have all of theirs


@dataclass(frozen=True)
class ClaimResult:
    """A claim about one comparison. `p` is adjusted by Holm over the claims declared before any result; `margin` is in
    the unit of the measure. `interval` is that of the test: of 90 % for equivalence, whose `power` is that at a
    difference of 0. `late`: how it was changed after there were results; then it is exploratory. `opposite`: p is small
    on the other side of the bound."""

    claim: DeclaredClaim
    contrast: Contrast
    margin: float
    p: float
    interval: Ends
    power: float
    verdict: str
    late: str
    opposite: bool = False

    @property
    def exploratory(self) -> bool:
        return self.late.endswith(EXPLORATORY)

    def text(self, labels: Labels) -> str:
        claim, margin = self.claim, f" by {number(self.margin)}" * bool(self.claim.margin)
        label = f" ({labels.name(self.contrast.arm)})" if self.contrast.arm.rows else ""
        return f"{claim.contrast}{label}, {claim.measure}, {claim.direction.value}{margin}"


def claim_results(root: Path, name: str, arms: Sequence[Arm]) -> list[ClaimResult]:
    """The claims of a sweep, one for each comparison that they are about, or one that is not measured. Only comparisons
    of the first launch that has any: an arm that is added later makes no further claim."""
    results, sweep = [], SweepArms(arms)
    for claim, late in declared(Ledger(root, name).folder):
        tests = [contrast(root, comparison, claim.measure, sweep, second=True) for comparison in claimed(claim, arms)]
        results += [judged(claim, each, late) for each in tests or [missing(claim)]]
    return corrected(results)


def claimed(claim: DeclaredClaim, arms: Sequence[Arm]) -> list[Comparison]:
    about = [
        comparison
        for comparison in comparisons(arms, claim.contrast)
        if comparison.contrast == claim.contrast and not differing(comparison.arm, claim.where)
    ]
    first = min((comparison.launch for comparison in about), default="")
    return [comparison for comparison in about if comparison.launch == first]


def differing(arm: Arm | CellRecord, where: Sequence[str]) -> list[str]:
    """The axes of a claim's `where` that have another value in this arm or cell."""
    return [axis for axis, _, value in (text.partition("=") for text in where) if value_of(arm, axis) != text_of(value)]


def without_cells(claims: Sequence[DeclaredClaim], records: Sequence[CellRecord]) -> list[str]:
    """A line for each claim that is about no cell of this launch: its cells come later, or a value is misspelt."""
    lines = []
    for at, claim in enumerate(claims):
        nearest = min((differing(record, claim.where) for record in records), key=len, default=[])
        if nearest:
            values = ", ".join(sorted({value_of(record, nearest[0]) for record in records}))
            lines.append(f"report.claims.{at}.where: is true of no cell of this launch; {nearest[0]} has {values}")
    return lines


def corrected(results: list[ClaimResult]) -> list[ClaimResult]:
    """With Holm's correction and what is shown, or its opposite; exploratory claims among themselves."""
    for exploratory in (False, True):
        places = [at for at, each in enumerate(results) if each.exploratory is exploratory]
        tests = [1.0 if math.isnan(p := results[at].p) else p for at in places]  # what is not measured is a claim too
        for at, p in zip(places, adjusted(tests, HOLM), strict=True):
            each = results[at]
            if not math.isnan(each.p):
                verdict = REFUTED if each.opposite else SHOWN
                results[at] = replace(each, p=p, verdict=verdict if p < ALPHA else each.verdict)
    return results


def missing(claim: DeclaredClaim) -> Contrast:
    none = Effect(math.nan, math.nan, math.nan, 0, 0)
    return Contrast(claim.contrast, claim.measure, Arm("", {}, [], {}), none, note="no arms are compared like this")


def judged(claim: DeclaredClaim, test: Contrast, late: str) -> ClaimResult:
    """The test of one claim, not adjusted yet: two-sided, so that Holm holds for the opposite too."""
    effect, margin = test.effect, claim.margin * test.span if claim.margin else 0.0
    test = replace(test, note=join_notes(test.note, NO_MARGIN * (math.isnan(margin) and not math.isnan(effect.value))))
    verdict = unproven(test, margin)
    if claim.direction is Direction.equivalent:
        power = power_of_equivalence(margin / effect.error, effect.df)
        p, ends = effect.p_within(margin), effect.interval(1 - 2 * ALPHA)
        return ClaimResult(claim, test, margin, math.nan if test.part else p, ends, power, verdict, late)
    higher = claim.direction in (Direction.higher, Direction.not_lower)
    bound = margin if claim.direction in (Direction.higher, Direction.not_higher) else -margin
    p, (below, above) = math.nan if test.part else effect.p(bound), effect.one_sided(bound)
    opposite = below < above if higher else above < below
    return ClaimResult(claim, test, margin, p, effect.interval(), math.nan, verdict, late, opposite)


def unproven(test: Contrast, margin: float) -> str:
    if math.isnan(test.effect.value) or math.isnan(margin):
        return UNDEFINED
    return DESCRIBED if test.part or math.isnan(test.effect.error) else NOT_SHOWN


def no_comparison(outcomes: Sequence[Contrast], others: int = 0) -> str:
    """Why a sweep has no primary comparison, and what its others say; `others`: how many there are if too many."""
    counts = Counter(each.verdict for each in outcomes)
    text = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    text = f"; others, exploratory: {text}" if outcomes else f"; {others} others are on the page" * bool(others)
    return f"no {'primary ' * bool(text)}comparison: {NOT_COMPARED}{text}"


def answer_lines(
    claims: Sequence[ClaimResult], outcomes: Sequence[Contrast], labels: Labels, candidates: Sequence[Comparison] = ()
) -> list[str]:
    """The answer as lines of a terminal: the claims, or the primary comparisons on their first measure.
    `candidates` are those of the sweep, where `outcomes` has not all of them."""
    lines = [
        f"{each.verdict}: {each.text(labels)}: {numbers(each.contrast.effect, each.interval)}; "
        f"Holm p = {number(each.p)}" + f"; {each.late}" * bool(each.late)
        for each in claims
    ]
    first = {(each.name, each.arm.key): each for each in reversed(outcomes) if each.rank < 2}
    compared = [
        f"{each.verdict}: {each.name} ({labels.name(each.arm)}), {each.measure}: "
        f"{numbers(each.effect, each.effect.interval())}; exploratory"
        for each in reversed(first.values())
    ]
    count = max(len(compared), sum(each.rank < 2 for each in candidates))
    more = f"and {count - LINES} more comparisons, on the page and in contrasts.csv"
    return lines or [*compared[:LINES], *[more] * (count > LINES)] or [no_comparison(outcomes, len(candidates))]


def numbers(effect: Effect, ends: Ends) -> str:
    prompts = f"{effect.n} prompts × " * bool(effect.n)
    return f"{number(effect.value)} {interval(*ends)}".rstrip() + f"; {prompts}{effect.replicates} models"


def answer(root: Path, name: str) -> list[str]:
    """The answer of a sweep as it stands; empty where nothing is finished."""
    rows = collect(root, name)
    everyone, labels = labelled(rows)
    arms = [arm for arm in everyone if arm.means]
    claims = claim_results(root, name, arms)
    if not arms:
        return []
    all_comparisons = [] if claims else sorted(comparisons(arms), key=lambda each: each.rank)
    leading = [each for each in all_comparisons if each.rank < 2]
    family = leading[:LINES] or all_comparisons * (len(all_comparisons) <= MOST)  # each takes a fifth of a second
    outcomes = contrasts(root, SweepArms(arms), shown_headlines(rows)[0], family)  # corrected as on the page
    return answer_lines(claims, outcomes, labels, all_comparisons)


def planned(root: Path, pilot: str, claims: Sequence[DeclaredClaim], records: Sequence[CellRecord]) -> list[str]:
    """For each claim the smallest effect that this launch can show, from the variances of a pilot."""
    arms = arms_of(collect(root, pilot)) if pilot and (root / "sweeps" / pilot / "cells.jsonl").exists() else []
    trained = {cell.train for cell in Ledger(root, pilot).cells() if cell.train} if arms else set()
    if reused := len(trained.intersection(record.train for record in records)):
        raise ConfigError(f"report.pilot={pilot}: {reused} of its models are in this sweep too; choose other seeds")
    cells = [*records, *vanilla_cells([*records])]
    here = arms_of([CellRow(one.key, one.arm, one.axes, one.seeds, one.train or "", "") for one in cells], scored=False)
    replicates, lines = min((arm.replicates for arm in here if arm.rows[0].model), default=0), []
    tests = sum(max(1, len(claimed(claim, here))) for claim in claims)  # what is about no cell is corrected for too
    for claim in claims:
        text = "unknown: name a noise-floor sweep that has this measure, report.pilot=NAME"
        if claim.measure == EXCESS:
            text = "unknown: it is a sum over single answers of all singles, which no pilot of other models has"
        tables = pilot_differences(root, arms, claim)
        if tables and replicates >= ENOUGH:
            ends = [expected(table, replicates) for table in tables]
            error, df = math.sqrt(statistics.fmean(each**2 for each, _ in ends)), min(df for _, df in ends)
            equivalent, alpha = claim.direction is Direction.equivalent, ALPHA / tests
            size = smallest_margin(error, df, alpha) if equivalent else detectable(error, df, alpha)
            text = f"{'a margin of ' * equivalent}{number(size)} with {replicates} replicates, 80 % power and Holm "
            text += f"over {plural(tests, 'comparison')}"
        lines.append(f"detects   {claim.contrast}, {claim.measure}, {claim.direction.value}: {text}")
    return lines


def pilot_differences(root: Path, arms: Sequence[Arm], claim: DeclaredClaim) -> list[np.ndarray]:
    """The differences (prompts, replicates) of the pairs of arms of a pilot that are compared as claimed, or where
    there are none of all pairs of synthetic arms that it compares."""
    all_comparisons = list(comparisons(arms, claim.contrast))
    same = [comparison for comparison in all_comparisons if comparison.contrast == claim.contrast]
    pairs = {(each.arm.key, one.key): [each.arm, one] for each in same or all_comparisons for one in each.others
             if same or not {"human", VANILLA} & {each.arm.axes["mix"], one.axes["mix"]}}  # fmt: skip
    tables = []
    for pair in pairs.values():
        rows = [row for row in matched(pair) if all(claim.measure in each.scores for each in row)]
        if len(rows) > 1 and all(math.isfinite(each.scores[claim.measure].value) for row in rows for each in row):
            tables.append(differences(root, rows, claim.measure, np.array([[1.0], [-1.0]]) * np.ones(len(rows)))[0])
    return tables
