"""The tables of a report as rows: for CSV with every digit (`docs/outputs.md` has the columns), for the page, LaTeX."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

from synthdiv.core.ledger import EARLY, LEFT_OUT, NOT_APPLICABLE
from synthdiv.core.types import Score
from synthdiv.measures.estimates import join_notes
from synthdiv.measures.replicates import detectable
from synthdiv.views.layout import Row, arrow, cell_text, columns, interval, number
from synthdiv.views.report.arms import DESCRIPTIVE, Arm, Mean
from synthdiv.views.report.collect import VANILLA, CellRow
from synthdiv.views.report.contrasts import Contrast
from synthdiv.views.report.findings import ClaimResult
from synthdiv.views.report.labels import Labels

HIDDEN = ("name", "role", "note", "least", "most")  # the last two are in scores.json
NAMED = 4  # arms in a warning
MISSING = "not measured: the suite is not finished, or does not have this measure"
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$",
    "∞": r"$\infty$", "−": "$-$", "—": "---", "–": "--", "<": r"\textless{}", ">": r"\textgreater{}", "·": r"$\cdot$",
}  # fmt: skip


def cell_rows(rows: Sequence[CellRow]) -> list[Row]:
    """A row for each score of a cell. Cells without a score have none; the page lists them."""
    blank = {name: "" for row in rows for name in (*row.axes, *row.seeds)}
    return [
        {"cell": row.key, "arm": row.arm, "state": row.state, **blank, **row.axes, **row.seeds, "measure": score.name}
        | {name: value for name, value in dataclasses.asdict(score).items() if name not in HIDDEN}
        | {"note": score.note, "role": score.role, "key": row.origin.get(score.name, "")}
        for row in rows
        for score in row.scores.values()
    ]


def arm_rows(arms: Sequence[Arm], labels: Labels) -> list[Row]:
    blank = {name: "" for arm in arms for name in arm.axes}
    return [
        {"arm": arm.key, "name": labels.name(arm), **blank, **arm.axes, "measure": measure, "mean": mean.value}
        | {"low": mean.low, "high": mean.high, "replicates": mean.replicates, "n": mean.n, "spread": mean.spread}
        | {"seeds": " ".join(arm.seeds), "unit": mean.like.unit, "higher_is_better": mean.like.higher_is_better}
        | {
            "note": mean.note,
            "keys": " ".join(dict.fromkeys(row.origin[measure] for row in arm.rows if measure in row.origin)),
        }
        for arm in arms
        for measure, mean in arm.means.items()
    ]


def heading(score: Score) -> str:
    """A measure's name with its direction and unit."""
    return score.name + arrow(score.higher_is_better) + (f" ({score.unit})" if score.unit else "")


def measure_rows(arms: Sequence[Arm], name: str, labels: Labels) -> list[Row]:
    """One measure: a row for each arm with its mean over trained models, and their interval or range."""
    ordered = sorted(arms, key=labels.order)
    return [{"arm": labels.name(arm)} | mean_row(arm.means.get(name), arm) for arm in ordered]


def mean_row(mean: Mean | None, arm: Arm) -> dict[str, Any]:
    if mean is None:
        return {"mean": math.nan, "models": 0, "note": MISSING}
    spread = ""
    if mean.spread == DESCRIPTIVE:
        spread = f"{number(mean.low)} – {number(mean.high)} (range)" if mean.replicates > 1 else "one model"
    elif mean.spread:
        spread = interval(mean.low, mean.high)
    facts = {"models": mean.replicates, "seeds that vary": ", ".join(arm.seeds), "n": mean.n, "note": mean.note}
    return {"mean": mean.value, "spread": spread, **facts}


def contrast_rows(contrasts: Sequence[Contrast], labels: Labels) -> list[Row]:
    """A row for each comparison on one measure, with every digit and the keys of the suites it comes from."""
    return [
        {"contrast": each.name, "arm": labels.name(each.arm), "measure": each.measure, "difference": each.effect.value}
        | dict(zip(("low", "high"), each.effect.interval(), strict=True))
        | {"p": each.effect.p(), "p_by": each.adjusted, "verdict": each.verdict, "n": each.effect.n}
        | {"replicates": each.effect.replicates, "df": each.effect.df, "pooled": each.effect.pooled}
        | {"noise": each.noise, "detectable": detectable(each.effect.error, each.effect.df), "human_vanilla": each.span}
        | dict(zip(("size", "size_low", "size_high"), each.size, strict=True))
        | dict(zip(("ratio", "ratio_low", "ratio_high"), each.ratio, strict=True))
        | dict(zip(("prompts_low", "prompts_high"), each.prompts, strict=True))
        | {"unit": each.unit, "seeds": " ".join(each.seeds), "note": each.note, "keys": " ".join(each.keys)}
        for each in contrasts
    ]


def comparison_name(each: Contrast, labels: Labels) -> str:
    return f"{labels.name(each.arm)} − {each.name.partition(' - ')[2]}"


def comparison_rows(contrasts: Sequence[Contrast], labels: Labels, titled: bool = True) -> list[Row]:
    """The same for readers."""
    return [
        ({"comparison": comparison_name(each, labels)} if titled else {})
        | {"measure": each.measure + arrow(each.higher_is_better) * bool(each.keys), "verdict": each.verdict}
        | {"difference": each.effect.value, "95 %": interval(*each.effect.interval())}
        | {"95 %, of these models alone": interval(*each.prompts), "p (BY)": each.adjusted}
        | facts_of(each)
        | {"note": each.note}
        for each in contrasts
    ]


def facts_of(each: Contrast) -> dict[str, Any]:
    """How large and how sure a comparison is: the columns after its difference."""
    effect = each.effect
    size = f"{number(each.size[0])} {interval(*each.size[1:])}".rstrip() if math.isfinite(each.size[0]) else ""
    facts = {"size (sd)": size, "noise ±": each.noise, "detects": detectable(effect.error, effect.df)}
    return facts | {"models": effect.replicates, "n": effect.n or "sets"}


def claim_rows(claims: Sequence[ClaimResult], labels: Labels) -> list[Row]:
    return [
        {"claim": each.text(labels), "verdict": each.verdict + ", exploratory" * each.exploratory}
        | {"difference": each.contrast.effect.value, "interval": interval(*each.interval)}
        | {"p (Holm)": each.p, "power": each.power}
        | facts_of(each.contrast)
        | {"note": join_notes(each.late, each.contrast.note)}
        for each in claims
    ]


def unfinished_rows(rows: Sequence[CellRow]) -> list[Row]:
    """Every cell that is not done, with its state and the reason."""

    def words(values: dict[str, Any]) -> str:
        known = (f"{name.removesuffix('.seed')}={value}" for name, value in values.items()
                 if value not in (NOT_APPLICABLE, ""))  # fmt: skip
        return " ".join(known)

    return [
        {"cell": row.key[:8], "axes": words(row.axes), "seeds": words(row.seeds), "state": row.state, "why": row.reason}
        for row in rows
        if row.state != "done"
    ]


def unmatched(arms: Sequence[Arm], labels: Labels) -> str:
    """The warning if arms train different amounts, by `report.unmatched` or by stopping early; else empty."""
    budgets: dict[str, dict[str, None]] = {}
    for arm in sorted(arms, key=labels.order):
        for row in arm.rows:
            if row.axes.get("mix") != VANILLA:
                budgets.setdefault(row.unmatched, {})[labels.name(arm)] = None
    if len(budgets) < 2 and not any(word in budget for budget in budgets for word in (EARLY, LEFT_OUT)):
        return ""  # all arms train the same amount
    groups = (f"{some(names)} ({budget or 'launched as matched'})" for budget, names in budgets.items())
    return f"arms are not matched: {'; '.join(groups)}"


def some(names: Collection[str]) -> str:
    """The first names of many, and how many more there are."""
    return ", ".join(islice(names, NAMED)) + f" and {len(names) - NAMED} more" * (len(names) > NAMED)


def latex(rows: Sequence[Row], caption: str) -> str:
    """A table for a paper, with the rules of `booktabs`."""
    names = columns(rows)
    kinds = "".join("r" if all(isinstance(row.get(name), (int, float)) for row in rows) else "l" for name in names)
    lines = [names, *([cell_text(row.get(name)) for name in names] for row in rows)]
    top, *body = (" & ".join(map(escaped, line)) + r" \\" for line in lines)
    return "\n".join([
        r"% \usepackage{booktabs}", r"\begin{table}", rf"\caption{{{escaped(caption)}}}",
        rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", top, r"\midrule", *body, r"\bottomrule",
        r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip


def escaped(words: str) -> str:
    return re.sub("[" + re.escape("".join(LATEX)) + "]", lambda match: LATEX[match[0]], words.replace("\n", " "))
