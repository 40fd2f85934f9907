"""How students answer for evaluation: decodings and samples; and the answers by prompt."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from synthdiv.core.fields import setting
from synthdiv.core.types import Sample
from synthdiv.generate.spec import Sampling
from synthdiv.prompts.split import rank


@dataclass
class Decoding:
    """A named way of answering test prompts."""

    name: str = ""
    """The name, which prefixes the scores of its answers."""
    sampling: Sampling = field(default_factory=Sampling)
    """How tokens are drawn."""


def study_decodings() -> list[Decoding]:
    """S1's decoding, and temperature 1 with top-p 1 beside it, because top-p hides the tail."""
    return [Decoding("published", Sampling(0.7, 0.9)), Decoding("plain", Sampling(1.0, 1.0))]


@dataclass
class Respond:
    """Answers of students to the test prompts."""

    decodings: list[Decoding] = field(default_factory=study_decodings)
    """Every decoding answers all test prompts."""
    samples: int = setting(8, least=1)
    """Answers to each of the first `subset` prompts; the others get one."""
    subset: int = setting(100, least=0)
    """Prompts of the stratified order that get several answers."""
    seed: int = setting(0, seed=True)
    """Seed of the answers' random streams."""

    def check(self, name: str) -> list[str]:
        names = [decoding.name for decoding in self.decodings]
        if len(set(names)) == len(names) and all(names) and not any("/" in each for each in names):
            return []
        return [f"{name}.decodings: need different names without a slash; have {names}"]


def grouped(rows: list[Sample]) -> dict[str, list[Sample]]:
    """Samples by prompt, prompts in one shuffled order (the same in every arm), samples by index.

    Not in the order of ids: they can begin with the stratum, and a budget of words takes the first prompts.
    """
    groups: dict[str, list[Sample]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (rank(0, "texts", row.id), row.sample)):
        groups[row.id].append(row)
    return dict(groups)


def responses(groups: dict[str, list[Sample]]) -> dict[str, list[str]]:
    return {key: [row.response for row in rows] for key, rows in groups.items()}
