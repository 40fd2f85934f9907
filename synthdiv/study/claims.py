"""What a study claims, declared before it runs; the names of comparisons that claims, reports and pages share."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.stage import digest
from synthdiv.core.tail import Tail
from synthdiv.core.types import ConfigError

BEST, MIXTURE, MEAN, SYNTHETIC = "best single", "mixture of singles", "mean of singles", "mean of synthetic"
EXCESS = "excess over the mixture"  # the measure of comparisons with a mixture: nats an answer
SEVERAL = ("multi", "multi_decoding")
NAMES = tuple(f"{mix} - {other}" for mix in SEVERAL for other in (BEST, MIXTURE, MEAN, "human"))
MATCHED, POOLS, LINEAGES = "single_matched", ("pooled", "segmented"), "mean of single lineages"
NAMES += ("single - human", f"human - {SYNTHETIC}", "human - vanilla", f"multi - {MATCHED}")
NAMES += tuple(f"{lineage} - {LINEAGES}" for lineage in POOLS)
ADDED, EXPLORATORY = "added", ": exploratory"  # how the note of a claim declared after results begins and ends
AXIS = r"([\w.]+)=([^= ]+) - \1=([^= ]+)"  # two arms that differ in this axis alone


class Direction(Enum):
    """On which side of ± margin the difference is."""

    higher = "higher"
    lower = "lower"
    not_higher = "not_higher"
    not_lower = "not_lower"
    equivalent = "equivalent"


@dataclass
class DeclaredClaim:
    """One thing that a study sets out to show."""

    contrast: str = ""
    """Which arms are compared: `multi - best single`, or two values of one axis, `student=small - student=large`."""
    measure: str = ""
    """The name of a score."""
    direction: Direction = Direction.higher
    """`higher`, `lower` (by more than the margin), `not_higher`, `not_lower`, `equivalent` (within the margin)."""
    margin: float = setting(0.0, least=0)
    """Share of |human - vanilla| of the measure."""
    where: list[str] = field(default_factory=list)
    """Only comparisons with these axes, like `student=toy_large`; empty: each one is a claim of its own."""

    def check(self, name: str) -> list[str]:
        problems = []
        if self.contrast not in NAMES and not re.fullmatch(AXIS, self.contrast):
            problems = [f"{name}.contrast={self.contrast!r}: choose {', '.join(NAMES)}, or AXIS=VALUE - AXIS=VALUE"]
        if not self.measure:
            problems.append(f"{name}.measure: needs the name of a score")
        elif self.contrast.endswith(MIXTURE) != (self.measure == EXCESS):
            choices = EXCESS if self.contrast.endswith(MIXTURE) else f"another score, or {SEVERAL[0]} - {MIXTURE}"
            problems.append(f"{name}.measure={self.measure!r}: for {self.contrast} choose {choices}")
        if self.margin == 0 and self.direction not in (Direction.higher, Direction.lower):
            problems.append(f"{name}.margin=0: {self.direction.value} needs a margin, a share of |human - vanilla|")
        return problems


def declare(folder: Path, claims: Sequence[DeclaredClaim], results: int) -> None:
    """Add the claims of a launch to `claims.jsonl` of a sweep, with how many cells had results by then and the hash of
    both, unless they are those declared last."""
    plain = json.loads(json.dumps([dataclasses.asdict(claim) for claim in claims], default=lambda item: item.value))
    before = (tail := Tail(folder / "claims.jsonl")).read()
    if plain != (before[-1].get("claims") if before else []):
        row = {"sha256": digest([results, plain]), "results": results, "claims": plain}
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "claims.jsonl").open("a", encoding="utf-8") as handle:
            handle.write("\n" * tail.incomplete + json.dumps(row) + "\n")


def declared(folder: Path) -> list[tuple[DeclaredClaim, str]]:
    """Every claim of a sweep in the order of declaration, with what is to be known of it: empty for one declared before
    any result and kept. Later launches add claims and remove none. ConfigError names a row that has no claims."""
    rows: list[dict[str, Any]] = (tail := Tail(folder / "claims.jsonl")).read()
    if tail.cut:  # claims that nobody tests would be dropped without a word
        raise ConfigError(f"{tail.path}: {tail.cut} of its lines are cut; restore the file as the launch wrote it")
    unique: dict[str, tuple[DeclaredClaim, str]] = {}
    for number, row in enumerate(rows, 1):
        try:
            claims = [DeclaredClaim(**each | {"direction": Direction(each["direction"])}) for each in row["claims"]]
            withdrawn = "withdrawn" + " after results" * bool(rows[-1]["results"])
            late = f"{ADDED} after {row['results']} cells had results{EXPLORATORY}" if row["results"] else ""
            if row["sha256"] != digest([row["results"], row["claims"]]):
                late = f"edited after it was declared{EXPLORATORY}"
            for claim, plain in zip(claims, row["claims"], strict=True):
                unique.setdefault(digest(plain), (claim, late or ("" if plain in rows[-1]["claims"] else withdrawn)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            directions = ", ".join(Direction.__members__)
            problem = f"row {number} is no list of claims ({error}); directions are {directions}"
            raise ConfigError(
                f"{folder / 'claims.jsonl'}: {problem}; restore the file as the launch wrote it"
            ) from error
    return list(unique.values())
