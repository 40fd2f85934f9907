"""Scores of judged answers: each judge by itself, and the mean of the panel, which is the headline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import Artifact
from synthdiv.evaluate.rubric import Rubric
from synthdiv.evaluate.verdicts import JudgeModel, read_verdicts
from synthdiv.generate.spec import Backend
from synthdiv.measures.estimates import SHARE, Estimate, Measure, mean_of, undefined
from synthdiv.measures.pairwise import order_scores

Row = dict[str, Any]
Groups = dict[str, list[Row]]  # verdicts by prompt id, in the order of the prompt set
PANEL = "panel"
NO_PANEL = (
    "a headline needs a panel of two judges that are unrelated to student and sources (judge.models with "
    "headline=true), or the exact judge of the toy world"
)
UNJUDGED = "no verdict"


def panel_of(judges: Iterable[JudgeModel]) -> list[str]:
    """The judges whose mean is a headline, or none: the exact one alone, else at least two models of those meant for
    it. Rules are no model: with them one judge would be a panel."""
    members = [judge for judge in judges if judge.headline and judge.source.backend is not Backend.rules]
    exact = [judge.name for judge in members if judge.source.backend is Backend.exact]
    return exact[:1] or ([judge.name for judge in members] if len(members) > 1 else [])


def verdicts_by_prompt(artifact: Artifact) -> Groups:
    groups: Groups = {}
    for row in read_verdicts(artifact):
        groups.setdefault(row["prompt_id"], []).append(row)
    return groups


def values_of(groups: Groups, prompts: Iterable[str]) -> np.ndarray:
    """The mean value of each prompt's verdicts (prompts,), NaN where none of them has one."""
    means = []
    for prompt in prompts:
        values = [row["value"] for row in groups.get(prompt, []) if not row["problem"]]
        means.append(sum(values) / len(values) if values else np.nan)
    return np.array(means, dtype=float)


def orders_of(groups: Groups, prompts: Sequence[str]) -> np.ndarray:
    """The verdicts on each prompt's pair by order (prompts, 2), NaN for none. Their mean is the verdict on the pair:
    a verdict in one order has the judge's position in it."""
    orders = np.full((len(prompts), 2), np.nan)
    for at, prompt in enumerate(prompts):
        for row in groups.get(prompt, []):
            if not row["problem"]:
                orders[at, row["order"]] = row["value"]
    return orders


def order_estimates(orders: np.ndarray, prompts: Sequence[str]) -> list[Estimate]:
    """Position bias, flips and ties of pairs (pairs, 2) with a verdict in both orders. Orders do not miss at random:
    a verdict in one order has who wins in it."""
    both = orders + 0 * orders[:, ::-1]
    single = int((np.isnan(both) & ~np.isnan(orders)).sum())
    note = f"{single} of {len(orders)} pairs have a verdict in one order only and are left out" if single else ""
    return [each.with_note(note) for each in order_scores(both[:, 0], both[:, 1], prompts)]


def rating_measure(rubric: Rubric, name: str) -> Measure:
    """The table entry of a rubric's numbers."""
    low, high = min(rubric.values), max(rubric.values)
    unit = SHARE if (low, high) == (0.0, 1.0) else f"rating {low:g} to {high:g}"
    return Measure(f"{rubric.name}/{name}", unit, rubric.higher_is_better, UNJUDGED, low, high)


def rating_estimates(
    rubric: Rubric, judges: Mapping[str, Groups], prompts: Sequence[str], panel: Sequence[str] | None = None
) -> dict[str, Estimate]:
    """The estimate of each judge by its name, and with a `panel` of that: the mean over prompts of its members' mean,
    where all members have a verdict."""
    values = {name: values_of(groups, prompts) for name, groups in judges.items()}
    counts = {name: sum(not row["problem"] for rows in judges[name].values() for row in rows) for name in judges}
    estimates = {name: mean_of(rating_measure(rubric, name), values[name], counts[name]) for name in values}
    if panel is None:
        return estimates
    measure = rating_measure(rubric, PANEL)
    members = [values[name] for name in panel if name in values]
    if not members:
        return estimates | {PANEL: undefined(measure, NO_PANEL, len(prompts))}
    trials = min(counts[name] for name in panel if name in values)
    return estimates | {PANEL: mean_of(measure, sum(members) / len(members), trials)}


def problem_estimates(rubric: str, judges: Mapping[str, Groups]) -> list[Estimate]:
    """Of each judge the share of judge prompts without a verdict, with the reasons, and the probability that the
    options had together."""
    estimates = []
    for name, groups in judges.items():
        rows = [rows for rows in groups.values() if rows]
        reasons = [row["problem"] for each in rows for row in each if row["problem"]]
        note = ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted({*reasons}))
        shares = [sum(bool(row["problem"]) for row in each) / len(each) for each in rows]
        missing = Measure(f"unjudged/{rubric}/{name}", SHARE, False, "no judge prompt", 0, 1)
        estimates.append(mean_of(missing, shares, sum(map(len, rows))).with_note(note))
        mass = [float(np.mean([row["mass"] for row in each])) for each in rows]
        if not np.isnan(mass).all():
            unit = "probability of the options together"
            estimates.append(mean_of(Measure(f"mass/{rubric}/{name}", unit, True, "no logits", 0, 1), mass))
    return estimates
