"""A mix as rows of token ids: cut or left out where they are too long, and each of them counted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from synthdiv.core.types import DataError
from synthdiv.train.rows import Row
from synthdiv.train.tokens import Pair

if TYPE_CHECKING:
    from synthdiv.train.recipe import Recipe


def encode(stage: Recipe, mix: list[dict[str, Any]], pairs: Iterable[Pair]) -> tuple[list[Row], dict[str, int]]:
    """Rows of a mix from its token `pairs`, and how many were cut at `max_tokens`, left out for being longer, and left
    out because nothing of their answer is within it. Each row that stays has a supervised token."""
    counts = {"cut_rows": 0, "dropped_rows": 0, "unanswered_rows": 0}
    rows = []
    for item, (prompt, answer) in zip(mix, pairs, strict=True):
        ids = tuple((prompt + answer)[: stage.max_tokens])
        over = len(ids) < len(prompt) + len(answer)
        if len(ids) <= max(len(prompt), 1):  # nothing predicts the first token of a text
            counts["unanswered_rows"] += 1
        elif over and stage.overlong.value == "drop":
            counts["dropped_rows"] += 1
        else:
            counts["cut_rows"] += over
            first = len(prompt) if stage.loss_on.value == "answer" else 0
            rows.append(Row(ids, first, item.get("source", ""), item["id"]))
    if not rows:
        raise DataError(
            f"train.max_tokens={stage.max_tokens} leaves no row of {len(mix)}: {counts['dropped_rows']} are longer and "
            f"of {counts['unanswered_rows']} the whole answer would be cut away; raise it"
        )
    declared(stage, counts["dropped_rows"], len(mix))
    return rows, counts


def declared(stage: Recipe, dropped: int, rows: int) -> None:
    """Which answers are too long differs between arms: without them arms no longer train on the same prompts. A prompt
    that leaves no room for an answer is the same in every arm."""
    if stage.match.value == "rows" and dropped > stage.left_out * rows:
        share = math.ceil(1000 * dropped / rows) / 1000
        raise DataError(
            f"train.overlong=drop leaves out {dropped} of {rows} rows, and of another arm it may be others: their "
            f"budgets no longer match. Raise train.max_tokens={stage.max_tokens}, cut rows (train.overlong=cut), or "
            f"declare it: train.left_out={share:g} report.unmatched=true"
        )


def cut(pairs: list[Pair], longest: int, everything: bool = False) -> list[Row]:
    """Each pair as a row of at most `longest` tokens with at least one token of the answer; no pair is left out."""
    rows = []
    for prompt, answer in pairs:
        kept = prompt[: longest - 1]
        rows.append(Row((*kept, *answer[: longest - len(kept)]), 0 if everything else len(kept)))
    return rows
