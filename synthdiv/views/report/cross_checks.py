"""The tables beside the comparisons; `cross_checks` lists them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from synthdiv.core.lazy import np
from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.measures.concordance import consistency, rank_correlation
from synthdiv.measures.estimates import VANILLA as GAP
from synthdiv.measures.factorial import factorial_effects
from synthdiv.measures.multiplicity import published_tests
from synthdiv.measures.real_labels import real_labels
from synthdiv.measures.replicates import ENOUGH, false_positive_rate
from synthdiv.study.claims import SEVERAL
from synthdiv.views.layout import Row, interval
from synthdiv.views.report.arms import Arm, independent, value_of, varying
from synthdiv.views.report.collect import VANILLA
from synthdiv.views.report.comparisons import OF_SOURCES, REAL_SHARE, agree, without_share
from synthdiv.views.report.contrasts import Contrast
from synthdiv.views.report.heat import column_title, columns_of, values_of, within
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.shared_replicates import matched, prompt_values

NO_PAIRS = "no replicate has equal seeds and a finite value in this arm and in all of the curve"


def cross_checks(
    root: Path, arms: Sequence[Arm], contrasts: Sequence[Contrast], measures: Sequence[str], labels: Labels
) -> dict[str, list[Row]]:
    """Tables by title; those without a row are left out."""
    tables = {
        "Measures that contradict one another": contradictions(contrasts, labels),
        **across(arms, measures, labels),
        "Noise floor by kind of seed": noise(arms, measures, labels),
        "Consistency of prompts over seeds": repeated(root, arms, measures, labels),
        "Published tests, over prompts": published(root, arms, measures, labels),
        "Real rows with the same result": real_label_rows(arms, measures, labels),
    }
    return {title: rows for title, rows in tables.items() if rows}


def across(arms: Sequence[Arm], measures: Sequence[str], labels: Labels) -> dict[str, list[Row]]:
    """The tables over all arms, which no slice of a sweep has."""
    return {
        "Agreement of measures over cells": agreement(arms, measures),
        "Effects and interactions": effects(arms, measures, labels),
    }


def contradictions(contrasts: Sequence[Contrast], labels: Labels) -> list[Row]:
    """Comparisons in which one measure is better and another one worse, by their intervals."""
    families: dict[tuple[str, str], list[Contrast]] = defaultdict(list)
    for each in contrasts:
        families[each.name, each.arm.key].append(each)
    return [
        {"contrast": one.name, "arm": labels.name(one.arm), "better by": one.measure, "worse by": other.measure}
        for family in families.values()
        for one, other in itertools.product(family, family)
        if one.better == 1 and other.better == -1
    ]


def agreement(arms: Sequence[Arm], measures: Sequence[str]) -> list[Row]:
    """Rank correlations of measures over cells, each turned so that higher is better."""
    likes = {name: next(arm.means[name].like for arm in arms if name in arm.means) for name in measures}
    rows = [row for arm in arms for row in arm.rows]
    values = {
        name: (1 if like.higher_is_better else -1)
        * np.array([row.scores[name].value if name in row.scores else math.nan for row in rows])
        for name, like in likes.items()
        if like.higher_is_better is not None
    }
    owners = [arm.key for arm in arms for _ in arm.rows]
    table: list[Row] = []
    for one, other in itertools.combinations(values, 2):
        both = np.isfinite(values[one]) & np.isfinite(values[other])
        count = len({owner for owner, known in zip(owners, both, strict=True) if known})
        value, ends = rank_correlation(values[one], values[other], count)
        if not math.isnan(value):
            row = {"measure": one, "other": other, "rank correlation": value, "95 %": interval(*ends)}
            table.append(row | {"arms": count})
    return table


def effects(arms: Sequence[Arm], measures: Sequence[str], labels: Labels) -> list[Row]:
    """Effects of source diversity and of the other axes that synthetic arms vary, with their interactions. Singles of
    one setting are averaged over their sources. Replicates with equal seeds are a block: arms that lack one of those of
    the arm with the most are left out."""
    synthetic_arms = by_weights([arm for arm in arms if arm.axes.get("mix") in ("single", *SEVERAL)])
    factors = ["mix", *(axis for axis in labels.varying if axis not in ("source", "mix", "mix.weights"))]
    factors = [axis for axis in factors if len({value_of(arm, axis) for arm in synthetic_arms} - {NOT_APPLICABLE}) > 1]
    together = changing_together(synthetic_arms, factors)
    if len(together) < 2:
        return []
    rows, most = list[Row](), max(synthetic_arms, key=lambda arm: (arm.replicates, len(arm.rows)))
    blocks = {arm.key: [row for _, row in matched([most, arm])] for arm in synthetic_arms}
    for name in measures:
        groups: dict[tuple[str, ...], list[list[float]]] = defaultdict(list)
        for arm in synthetic_arms:
            scores = [row.scores[name].value if name in row.scores else math.nan for row in blocks[arm.key]]
            if scores and all(map(math.isfinite, scores)):
                groups[tuple(", ".join(values_of(arm, axes)) for axes in together)].append(scores)
        cells = {key: [statistics.fmean(each) for each in zip(*values, strict=True)] for key, values in groups.items()
                 if {*map(len, values)} == {most.replicates}}  # fmt: skip
        for each in factorial_effects(cells, [", ".join(axes) for axes in together]) if len(cells) > 1 else ():
            row = {"measure": name, "effect": each.name, "value": each.value, "df": each.df}
            rows.append(row | {"p": each.p, "models": most.replicates, "note": each.note})
    return rows


def changing_together(arms: Sequence[Arm], factors: Sequence[str]) -> list[list[str]]:
    """The factors, where those that no arm tells apart, as zipped axes, are one."""
    groups: list[list[str]] = []
    for axis in factors:
        for group in groups:
            pairs = {(value_of(arm, group[0]), value_of(arm, axis)) for arm in arms}
            if len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}):
                group.append(axis)
                break
        else:
            groups.append([axis])
    return groups


def by_weights(arms: Sequence[Arm]) -> list[Arm]:
    """The same arms, where those of several sources in different shares are mixes of their own: two sources and eight
    are not one level of source diversity."""
    weights = {arm.key: value_of(arm, "mix.weights") for arm in arms}
    if len({*weights.values()} - {NOT_APPLICABLE}) < 2:
        return [*arms]
    names = {arm.key: f"{arm.axes['mix']} {weights[arm.key]}" for arm in arms if weights[arm.key] != NOT_APPLICABLE}
    return [replace(arm, axes=arm.axes | {"mix": names.get(arm.key, arm.axes["mix"])}) for arm in arms]


def noise(arms: Sequence[Arm], measures: Sequence[str], labels: Labels) -> list[Row]:
    """Standard deviations of models of one arm: all seeds that vary together, and each alone. Of six models or more how
    often two halves differ at 5 %, though they are equal."""
    rows: list[Row] = []
    for arm, name in itertools.product(arms, measures):
        joint = independent(arm.rows)
        kinds, first = {" ".join(varying(joint)): joint}, joint[0].seeds
        for seed in varying(arm.rows):
            kinds[seed] = [row for row in arm.rows if all(first[s] == row.seeds[s] for s in row.seeds if s != seed)]
        for seeds, members in kinds.items():
            values = [row.scores[name].value for row in members if name in row.scores]
            if len(values) >= ENOUGH and all(map(math.isfinite, values)):
                row = {"measure": name, "arm": labels.name(arm), "seeds": seeds, "sd": statistics.stdev(values)}
                rows.append(row | {"models": len(values), "false positives": false_positive_rate(np.array(values))})
    return rows


def repeated(root: Path, arms: Sequence[Arm], measures: Sequence[str], labels: Labels) -> list[Row]:
    """How consistent the values of prompts are over the replicates of an arm."""
    import pandas

    rows: list[Row] = []
    for arm, name in itertools.product(arms, measures):
        members = independent(arm.rows)
        columns = [prompt_values(root, row, name) for row in members]
        if len(members) > 1 and not any(column is None for column in columns):
            value, ends = consistency(pandas.concat(columns, axis=1, join="inner").to_numpy())
            row = {"measure": name, "arm": labels.name(arm), "consistency": value, "95 %": interval(*ends)}
            rows.append(row | {"models": len(members)})
    return rows


def published(root: Path, arms: Sequence[Arm], measures: Sequence[str], labels: Labels) -> list[Row]:
    """S1's tests on the first model of each arm: prompts are taken for replicates. They are of groups of arms that
    differ in who writes the answers alone; an arm to which the axes of a group do not apply is in each."""
    axes = [axis for axis in labels.varying if axis not in OF_SOURCES]
    shared, rows = [without_share(arm) for arm in arms], list[Row]()
    names = [labels.name(arm) for arm in arms]
    for name, column in itertools.product(measures, columns_of(shared, axes)):
        group = [at for at, arm in enumerate(shared) if within(values_of(arm, axes), column)]
        values = {names[at]: prompt_values(root, independent(arms[at].rows)[0], name) for at in group}
        known = {label: each.to_numpy() for label, each in values.items() if each is not None}
        if len({value for each in known.values() for value in each}) < 2:
            continue  # ties alone
        rows += [{"measure": name, "group": column_title(axes, column), **row} for row in published_tests(known)]
    return rows


def real_label_rows(arms: Sequence[Arm], measures: Sequence[str], labels: Labels) -> list[Row]:
    """A row for each synthetic arm beside a real-only curve, and each measure that has a better direction and is of the
    student (so it is compared with the vanilla one), not of the fine-tuning set."""
    human = [arm for arm in arms if arm.axes.get("mix") == "human" and "rows" in arm.axes]
    synthetic, table = [arm for arm in arms if arm.axes.get("mix") not in ("human", VANILLA)], list[Row]()
    for arm in synthetic:
        curve = {int(one.axes["rows"]): one for one in human if agree(arm, one, (*OF_SOURCES, REAL_SHARE, "rows"))}
        if len(curve) < 2:
            continue
        matching = matched([arm, *curve.values()])
        for name in measures:
            mean = arm.means.get(name)
            if not mean or mean.like.higher_is_better is None or f"{name}{GAP}" not in arm.means:
                continue
            scores = [[row.scores[name].value for row in each if name in row.scores] for each in matching]
            pairs = [each for each in scores if len(each) > len(curve) and all(map(math.isfinite, each))]
            values, *levels = [[each[at] for each in pairs] or [math.nan] for at in range(1 + len(curve))]
            score = real_labels(values, dict(zip(curve, levels, strict=True)))
            row = {"arm": labels.name(arm), "measure": name, "real rows": score.value, "models": len(pairs)}
            table.append(row | {"95 %": interval(score.low, score.high), "note": score.note if pairs else NO_PAIRS})
    return table
