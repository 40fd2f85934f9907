"""Names of arms and their order. A name contains only axes in which arms differ, where a launch set them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.study.rounds import STUDENTS_OF
from synthdiv.views.report.arms import Arm, arms_of, value_of
from synthdiv.views.report.collect import CellRow

MIXES = ("none", "human", "single", "multi_decoding", "multi")
SIZES = ("nano", "xs", "tiny", "mini", "s", "small", "m", "medium", "base", "l", "large", "xl", "xxl", "huge")
PLAIN = ("prompts", "generators", "student", "train", "evaluate")  # a name shows their value without the axis


class Labels:
    """Names and order of the arms of one report."""

    def __init__(self, arms: Sequence[Arm]):
        self.varying = varying(arms)

    def mix(self, arm: Arm) -> str:
        mix = str(arm.axes.get("mix"))
        words = ["vanilla" if mix == "none" else mix.replace("_", " ")]
        if mix.startswith("single") and value_of(arm, "source") != NOT_APPLICABLE:
            words.append(value_of(arm, "source"))
        return " ".join(words)

    def name(self, arm: Arm) -> str:
        """The mix and its source, what else differs, and behind `→` the student."""
        words = [self.mix(arm)]
        for axis in sorted(self.varying, key=lambda axis: axis == "student"):
            value = value_of(arm, axis)
            if axis != "source" and value not in (NOT_APPLICABLE, "default"):
                words.append(axis_words(axis, value))
        return " ".join(words)

    def order(self, arm: Arm) -> tuple[Any, ...]:
        """Sort key: vanilla, human, single, multi; small before large; then the other axes that differ."""
        mix = str(arm.axes.get("mix"))
        axes = ["generators", *(axis for axis in self.varying if axis != "generators")]
        rank = MIXES.index(mix) if mix in MIXES else len(MIXES)
        return (rank, *(natural(value_of(arm, axis)) for axis in axes))


def began(arm: Arm) -> str:
    """The mix of an arm in round 0."""
    return str(arm.axes.get("mix")).removeprefix(STUDENTS_OF)


def axis_words(axis: str, value: str) -> str:
    if axis in PLAIN:
        return f"→ {value}" if axis == "student" else value
    return f"{axis.split('.')[-1].replace('_', ' ')} {value}"


def varying(arms: Sequence[Arm]) -> list[str]:
    """The axes other than the mix in which arms differ. Human and vanilla arms are compared among themselves: their
    real share and missing generators follow from the mix."""
    groups: dict[str, list[Arm]] = defaultdict(list)
    for arm in arms:
        groups[mix if (mix := began(arm)) in MIXES[:2] else "synthetic"].append(arm)
    axes: dict[str, None] = {}
    for group, members in groups.items():
        implied = ("mix", "real_share")[: 1 + (group in MIXES[:2])]
        for axis in dict.fromkeys(axis for arm in members for axis in arm.axes if axis not in implied):
            if len({value_of(arm, axis) for arm in members} - {NOT_APPLICABLE}) > 1:
                axes[axis] = None
    return list(axes)


def natural(value: str) -> tuple[Any, ...]:
    """Sort key: `default` first, numbers by value, names of sizes by size, other words by the alphabet."""
    if value == "default":
        return (0,)
    words = re.findall(r"[a-z]+", value.lower())
    size = next((SIZES.index(word) for word in words if word in SIZES), -1)
    parts = re.split(r"(\d+(?:\.\d+)?)", value)
    return (1, size, *((0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts)))


def labelled(rows: Sequence[CellRow]) -> tuple[list[Arm], Labels]:
    """The arms of cells, those without a score too, in the order in which pages and terminals show them."""
    arms = arms_of(rows, scored=False)
    labels = Labels(arms)
    return sorted(arms, key=labels.order), labels
