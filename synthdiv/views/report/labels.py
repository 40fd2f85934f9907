"""Names of arms, their order, and the panels of a figure. A name contains only axes in which arms differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.core.types import Score
from synthdiv.views.report.arms import Arm, value_of, varying

PANELS = ("generators.overlap", "generators.shift", "prompts", "rows")  # worlds and budgets are panels side by side
MIXES = ("none", "human", "single", "multi_decoding", "multi")
SIZES = ("nano", "xs", "tiny", "mini", "s", "small", "m", "medium", "base", "l", "large", "xl", "xxl", "huge")
PLAIN = (
    "prompts",
    "generators",
    "student",
    "train",
    "evaluate",
    "source",
)  # a label shows their value without the name of the axis


class Labels:
    """Names and order of the arms of one report."""

    def __init__(self, arms: Sequence[Arm]):
        self.varying = varying(arms)
        self.panels = [axis for axis in PANELS if axis in self.varying]
        self.students = sorted({self.student(arm) for arm in arms}, key=natural)

    def student(self, arm: Arm) -> str:
        return value_of(arm, "student")

    def label(self, arm: Arm) -> str:
        """The name without the student and the panel, which a figure shows by colour and position."""
        return self._text(arm, {"student", *self.panels})

    def full(self, arm: Arm) -> str:
        """The name in tables."""
        return self._text(arm, set())

    def _text(self, arm: Arm, without: set[str]) -> str:
        mix = str(arm.axes.get("mix"))
        words = ["vanilla" if mix == "none" else mix.replace("_", " ")]
        if mix == "single" and value_of(arm, "source") != NOT_APPLICABLE:
            words.append(value_of(arm, "source"))
        for axis in self.varying:
            value = value_of(arm, axis)
            if axis in without or axis == "source" or value == NOT_APPLICABLE:
                continue
            words.append(value if axis in PLAIN else f"{axis.split('.')[-1].replace('_', ' ')} {value}")
        return " ".join(words)

    def panel(self, arm: Arm) -> tuple[str, ...]:
        return tuple(value_of(arm, axis) for axis in self.panels)

    def all_panels(self, arms: Sequence[Arm]) -> list[tuple[str, ...]]:
        """The combinations that occur, without those of arms to which an axis of the panels does not apply."""
        panels = {self.panel(arm) for arm in arms}
        complete = {panel for panel in panels if NOT_APPLICABLE not in panel}
        return sorted(complete or panels, key=lambda panel: [natural(value) for value in panel])

    def within(self, arm: Arm, panel: tuple[str, ...]) -> bool:
        """Whether the arm is drawn in the panel. One without one of the axes is in every panel, as reference."""
        return all(current in (value, NOT_APPLICABLE) for current, value in zip(self.panel(arm), panel, strict=True))

    def title(self, panel: tuple[str, ...]) -> str:
        named = zip(self.panels, panel, strict=True)
        return ", ".join(f"{axis.split('.')[-1]} {value}" for axis, value in named)

    def order(self, arm: Arm) -> tuple[Any, ...]:
        """Sort key: vanilla, human, single, multi; small before large; then the other axes that differ."""
        mix = str(arm.axes.get("mix"))
        rank = MIXES.index(mix) if mix in MIXES else len(MIXES)
        axes = ["generators", *(axis for axis in self.varying if axis != "generators")]
        return (rank, *(natural(value_of(arm, axis)) for axis in axes))


def natural(value: str) -> tuple[Any, ...]:
    """Sort key: `default` first, numbers by value, names of sizes by size, other words by the alphabet."""
    if value == "default":
        return (0,)
    words = re.findall(r"[a-z]+", value.lower())
    size = next((SIZES.index(word) for word in words if word in SIZES), -1)
    parts = re.split(r"(\d+(?:\.\d+)?)", value)
    return (1, size, *((0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts)))


def direction(score: Score) -> str:
    """Which direction of a measure is better; for lexical measures, in which the answers are more diverse."""
    if score.higher_is_better is None:
        return ""
    side = "higher" if score.higher_is_better else "lower"
    return f"{side} is more diverse" if re.search(r"@(words|texts)", score.name) else f"{side} is better"


def arrow(score: Score) -> str:
    return {None: "", True: " ↑", False: " ↓"}[score.higher_is_better]


def number(value: float) -> str:
    return "∞" if value == float("inf") else "−∞" if value == float("-inf") else f"{value:.4g}"
