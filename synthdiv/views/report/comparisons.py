"""Which arms are compared: several sources with each alone, synthetic with human answers, pools with their members."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.study.claims import AXIS, BEST, LINEAGES, MATCHED, MEAN, MIXTURE, POOLS, SEVERAL, SYNTHETIC
from synthdiv.views.report.alike import Alike
from synthdiv.views.report.arms import LINEAGE, MEMBER, Arm, value_of
from synthdiv.views.report.collect import VANILLA, CellRow
from synthdiv.views.report.shared_replicates import matched

OF_SOURCES = ("mix", "source", "mix.weights", "mix.source")
REAL_SHARE = "real_share"  # follows from the mix of human and vanilla arms, and is an axis of all others


@dataclass(frozen=True)
class Comparison:
    """An arm and those that it is compared with. `contrast` is what claims write; `part` is not empty where singles of
    its sources, or members of a population, are absent: then it is about those that are there, and shows nothing of the
    best, mixture or mean. `members` are the others of its population, whose mean is compared."""

    contrast: str
    arm: Arm
    others: list[Arm]
    part: str = ""
    members: tuple[Arm, ...] = ()

    @property
    def name(self) -> str:
        if self.contrast.endswith(MATCHED):
            return f"{self.contrast} {source_of(self.others[0])}"
        if self.part and not self.others[1:] and not self.contrast.endswith(LINEAGES):
            return f"{self.arm.axes['mix']} - single {source_of(self.others[0])} ({self.part})"
        return self.contrast + f" ({self.part})" * bool(self.part)

    @property
    def rank(self) -> int:
        return rank(self.name, self.part)

    @property
    def launch(self) -> str:
        """The launch since which there is such a comparison."""
        return max(self.arm.launch, min(one.launch for one in self.others))

    @property
    def all_arms(self) -> list[Arm]:
        return [self.arm, *self.members, *self.others]

    @cached_property
    def replicates(self) -> list[list[CellRow]]:
        return matched(self.all_arms)

    @property
    def of_best(self) -> bool:
        """Whether the best of several is to be chosen."""
        return self.contrast.endswith(BEST) and len(self.others) > 1


def rank(name: str, part: str) -> int:
    """0: primary, several sources against their best single or the mixture of them (below their *mean* is convexity),
    or a pool against its members alone; 1: what there is of it: a part of the singles answers another question; 2: the
    others."""
    return 0 if name.endswith((BEST, MIXTURE, LINEAGES)) else 1 if part and MEAN not in name else 2


class ArmIndex:
    """Finds the arms of a sweep that a comparison is about."""

    def __init__(self, arms: Sequence[Arm]):
        self.arms, self.axes = arms, sorted({axis for arm in arms for axis in arm.axes})
        self.tables = cache(lambda free: Alike((one, self.values(one, free)) for one in arms))

    def values(self, arm: Arm, free: tuple[str, ...]) -> dict[str, str]:
        """The axes of an arm, but for those that are `free`."""
        arm = without_share(arm) if free == OF_SOURCES else arm
        return {axis: value_of(arm, axis) for axis in self.axes if axis not in free}

    def agreeing(self, arm: Arm, *free: str) -> list[Arm]:
        """The arms, this one too, that are equal to it on all axes that apply to both but for the `free` ones."""
        return self.tables(free).like(self.values(arm, free))


def comparisons(arms: Sequence[Arm], claimed: str = "") -> Iterator[Comparison]:
    """Several sources with each alone, and with one at their likelihood; synthetic arms with human answers; these with
    the vanilla student and with the mean of synthetic arms; a population of rounds with its members alone; what is
    `claimed` of two values of an axis. Only arms that are equal on all other axes."""
    index = ArmIndex(arms)
    for arm in arms:
        mix, alike = str(arm.axes.get("mix")), [one for one in index.agreeing(arm, *OF_SOURCES) if one is not arm]
        names = ("single", "human", VANILLA, MATCHED)
        kinds = {kind: [one for one in alike if one.axes["mix"] == kind] for kind in names}
        singles = first_complete([one for one in kinds["single"] if set(one.sources) <= set(arm.sources)], arm)
        if mix in SEVERAL and singles:
            present, total = len({source for one in singles for source in one.sources}), len(set(arm.sources))
            part = f"{present} of {total} singles" if present < total else ""
            for other in (BEST, MIXTURE, MEAN)[: 3 if singles[1:] else 1]:
                yield Comparison(f"{mix} - {other}", arm, singles, part)
        if mix in ("single", *SEVERAL):
            yield from (Comparison(f"{mix} - human", arm, [one]) for one in kinds["human"])
        if mix == "multi":
            weights = value_of(arm, "mix.weights")  # of what it is matched to
            same = [one for one in kinds[MATCHED] if value_of(one, "mix.weights") == weights]
            yield from (Comparison(f"multi - {MATCHED}", arm, [one]) for one in same)
        if value_of(arm, LINEAGE) in POOLS:
            yield from lineages(arm, index.agreeing(arm, LINEAGE, MEMBER))
        if mix == "human":
            yield from (Comparison("human - vanilla", arm, [one]) for one in kinds[VANILLA])
            if synthetic := [one for one in alike if one.axes["mix"] not in ("human", VANILLA, MATCHED)]:
                first = min(one.launch for one in synthetic)
                yield Comparison(f"human - {SYNTHETIC}", arm, [one for one in synthetic if one.launch == first])
        if parts := re.fullmatch(AXIS, claimed):
            axis, one, other = parts.groups()
            others = index.agreeing(arm, axis) if value_of(arm, axis) == one else []
            others = [each for each in others if value_of(each, axis) == other and equal_but(axis, arm, each)]
            yield from (Comparison(claimed, arm, [each]) for each in others)


def lineages(arm: Arm, alike: Sequence[Arm]) -> Iterator[Comparison]:
    """A population of rounds, once for all of its members, with the single lineages of the same members. `alike` are
    the arms that are equal but for both."""
    pool, alone = (
        {value_of(one, MEMBER): one for one in alike if value_of(one, LINEAGE) == lineage}
        for lineage in (value_of(arm, LINEAGE), "single")
    )
    both = sorted(pool.keys() & alone.keys())
    if both and pool[both[0]] is arm:
        part = f"{len(both)} of {len(pool | alone)} members" if len(both) < len(pool | alone) else ""
        named = replace(arm, axes=arm.axes | {MEMBER: "+".join(both)})
        rest = tuple(pool[member] for member in both[1:])
        name = f"{value_of(arm, LINEAGE)} - {LINEAGES}"
        yield Comparison(name, named, [alone[member] for member in both], part, rest)


def first_complete(singles: list[Arm], arm: Arm) -> list[Arm]:
    """The singles as of the first launch that completes the sources of the arm: later ones change no verdict."""
    for launch in sorted({one.launch for one in singles}):
        present = [one for one in singles if one.launch <= launch]
        if {source for one in present for source in one.sources} == set(arm.sources):
            return present
    return singles


def source_of(arm: Arm) -> str:
    """The one source of an arm, without of how many it is the first; empty where it has several."""
    source = value_of(arm, "source").partition(" (")[0]
    return "" if source == NOT_APPLICABLE else source


def without_share(arm: Arm) -> Arm:
    """An arm to which the real share does not apply where it follows from the mix."""
    follows = arm.axes.get("mix") in ("human", VANILLA)
    return replace(arm, axes=arm.axes | {REAL_SHARE: NOT_APPLICABLE}) if follows else arm


def agree(one: Arm, other: Arm, free: Sequence[str]) -> bool:
    """Whether two arms are equal on all axes that apply to both, but for those that are `free`."""
    names = [name for name in {**one.axes, **other.axes} if name not in free]
    pairs = [{value_of(one, name), value_of(other, name)} for name in names]
    return all(len(pair) == 1 or NOT_APPLICABLE in pair for pair in pairs)


def equal_but(axis: str, one: Arm, other: Arm) -> bool:
    return all(value_of(one, name) == value_of(other, name) for name in {**one.axes, **other.axes} if name != axis)
