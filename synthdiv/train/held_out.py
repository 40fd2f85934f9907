"""Loss on rows that are held out of training: the same prompts in every arm, own answers and human ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from synthdiv.train.loss import loss_sum
from synthdiv.train.rows import Row, Rows
from synthdiv.train.strategies import Alone

if TYPE_CHECKING:
    from synthdiv.train.tokens import Pair


def cut(pairs: list[Pair], longest: int, everything: bool = False) -> list[Row]:
    """Each pair as a row of at most `longest` tokens, none left out: one token of the answer is always there."""
    rows = []
    for prompt, answer in pairs:
        asked = prompt[: longest - 1]
        rows.append(Row((*asked, *answer[: longest - len(asked)]), 0 if everything else len(asked)))
    return rows


def mean_loss(over: Alone, rows: list[Row], micro: int) -> float:
    """Negative log-likelihood per supervised token (nats), pooled; ranks share the rows and call it together."""
    table, training = Rows(rows, 0), over.model.training
    total: Any = torch.zeros((), device=over.device)
    over.model.eval()
    with torch.no_grad(), torch.autocast(over.device.type, torch.bfloat16, enabled=over.precision == "bf16"):
        for part, weight in over.share(table, list(range(len(rows))), micro):
            total += over.call(loss_sum, table.tensors(part, over.device))[0] * weight
    over.model.train(training)
    return float(over.sum(total)) / sum(row.supervised for row in rows)
