"""Populations of rounds: members are averaged before anything is drawn, because the replicate is the population."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from synthdiv.views.report.arms import Arm, mean, measures_of, value_of

MEMBER, ROUND, LINEAGE = "rounds.member", "rounds.round", "rounds.lineage"


def populations(arms: Sequence[Arm]) -> list[Arm]:
    """Arms that differ in the member alone as one arm, whose axis names the members. Round 0, which arms share, is
    there for each set of members of later rounds too, so that no arm depends on the members of another."""
    groups: dict[str, dict[str, Arm]] = defaultdict(dict)
    for arm in arms:
        if MEMBER in arm.axes:
            rest = {axis: value for axis, value in arm.axes.items() if axis != MEMBER}
            value = value_of(arm, MEMBER)
            groups[json.dumps(rest, sort_keys=True)][value if value.isdecimal() else "0"] = arm
    starts = [group for group in groups.values() if next(iter(group.values())).axes.get(ROUND) == "0"]
    later = {tuple(sorted(group)) for group in groups.values() if group not in starts}
    begun = [models(group.values()) for group in starts]  # a start without a population is that of one member too
    result = [arm for arm in arms if MEMBER not in arm.axes]
    for group in groups.values():
        result.append(population([group[member] for member in sorted(group)]))
        parts = [[group[each] for each in members] for members in sorted(later) if {*members} < {*group}]
        result += [population(part) for part in parts if group in starts and models(part) not in begun]
    return result


def models(arms: Iterable[Arm]) -> set[str]:
    return {row.model for arm in arms for row in arm.rows}


def population(members: Sequence[Arm]) -> Arm:
    """One arm. A model of it is a replicate: the cells with the same seeds."""
    rows = [replace(row, model=json.dumps(row.seeds, sort_keys=True)) for arm in members for row in arm.rows]
    names = [value if (value := value_of(arm, MEMBER)).isdecimal() else "0" for arm in members]
    means = {name: mean(rows, name) for name in measures_of(rows)}
    return Arm(members[0].key, members[0].axes | {MEMBER: "+".join(names)}, rows, means)
