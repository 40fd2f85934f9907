"""Answers of one source at the temperature at which they are as likely under the vanilla student as several sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.mix.mix import FineTuningSet, read_mix, write_mix
from synthdiv.models.chat import Chat
from synthdiv.models.score import answer_log_likelihoods

PROMPTS, BATCH_TOKENS = 200, 16384  # the first train prompts, on which the temperature is tuned


@dataclass
class Matched(FineTuningSet):
    """Rows at two neighbouring temperatures, evenly among each other, in the shares that give the NLL a token of
    several sources, where longer answers weigh more. Inputs: `prompts`; the vanilla `student`; mixes of the same
    prompts: `multi`, and of the one source at each temperature. Output: `mix.parquet`."""

    name = "matched"
    version = 2
    model_input = "student"

    rows: int = 0
    """How many rows there are."""
    temperatures: list[float] = field(default_factory=list)
    """Those of the source, in order."""

    def input_names(self) -> list[str]:
        return ["prompts", "student", "multi", *(f"{at:g}" for at in self.temperatures)]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        opened, scored = run.model(inputs["student"], "fp32"), dict[str, list[tuple[float, int]]]()
        chat = Chat.for_prompts(opened.tokenizer, inputs["prompts"])
        pools = {name: read_mix(inputs[name]) for name in self.input_names()[2:]}
        for name, pool in pools.items():
            texts = ([row[column] for row in pool[:PROMPTS]] for column in ("prompt", "response"))
            values = answer_log_likelihoods(opened, chat.scored_pairs(*texts), BATCH_TOKENS, run.progress)
            scored[name] = [(-float(value.sum(dtype="float64")), len(value)) for value in values]
        nll, (wanted, *temperatures) = {name: a_token(rows) for name, rows in scored.items()}, pools
        for low, high in pairwise(temperatures):
            if nll[low] != nll[high] and 0 <= (nll[wanted] - nll[low]) / (nll[high] - nll[low]) <= 1:
                share = share_of(scored[low], scored[high], nll[wanted])
                names = [high if int((at + 1) * share) > int(at * share) else low for at in range(len(pools[low]))]
                rows = [pools[name][at] for at, name in enumerate(names)]
                write_mix(rows, out)
                taken = a_token([scored[name][at] for at, name in enumerate(names[:PROMPTS])])
                return {"rows": len(rows), "nll": nll, "achieved": taken, "shares": {low: 1 - share, high: share}}
        closest = min(temperatures, key=lambda name: abs(nll[name] - nll[wanted]))
        raise DataError(
            f"mix.temperatures: none gives the NLL a token of several sources under the vanilla student, {nll}; the "
            f"closest is {closest}; give a wider range"
        )


def a_token(rows: Sequence[tuple[float, int]]) -> float:
    """The NLL a token of rows, each with the NLL of its tokens and their number."""
    return sum(nll for nll, _ in rows) / sum(tokens for _, tokens in rows)


def share_of(low: Sequence[tuple[float, int]], high: Sequence[tuple[float, int]], wanted: float) -> float:
    """The share of the rows that are of `high` where both together have the `wanted` NLL a token, between theirs: a
    mean over tokens is linear in rows only where all are equally long."""
    below, above = (sum(nll - wanted * tokens for nll, tokens in rows) for rows in (low, high))
    return min(max(below / (below - above), 0.0), 1.0)  # rounding
