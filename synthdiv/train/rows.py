"""Rows of token ids, and how the rows of a step are cut into what a device takes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synthdiv.core.lazy import np

# padded tokens at once, and how many more of them cost as much as one more pass through the model
AT_ONCE = {"cpu": (4096, 64), "offload": (16384, 65536)}  # each pass fetches all weights from main memory
ELSEWHERE = (16384, 1024)
WIDTH = {"cpu": 1}  # the columns of a batch are a multiple of this
WIDTH_ELSEWHERE = 8  # kernels read so many bf16 at once, and torch.compile makes one program for all multiples


@dataclass(frozen=True)
class Row:
    """Token ids of a whole text and how many of the leading ones are not supervised; who answered, and which prompt."""

    ids: tuple[int, ...]
    prompt: int
    source: str = ""
    id: str = ""
    first_counts: int = 1
    """How many supervised tokens the first one counts as."""

    @property
    def first(self) -> int:
        """The place of the first supervised token: nothing predicts the first token of a text."""
        return max(self.prompt, 1)

    @property
    def supervised(self) -> int:
        return len(self.ids) - self.first + self.first_counts - 1


def parts(lengths: list[int], most: int, tokens: int, overhead: int) -> list[list[int]]:
    """Numbers sorted by length and cut where padded tokens, and `overhead` of them for each part, are fewest.

    A part has at most `most` numbers, and at most `tokens` padded tokens unless it is a single one.
    """
    order = sorted(range(len(lengths)), key=lambda number: (lengths[number], number))
    least, begins = np.zeros(len(order) + 1), [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        lowest = max(0, end - most, end - max(1, tokens // longest))
        costs = least[lowest:end] + (end - np.arange(lowest, end)) * longest + overhead
        begins.append(lowest + int(costs.argmin()))
        least[end] = costs.min()
    cut, end = [], len(order)
    while end:
        cut.append(order[begins[end] : end])
        end = begins[end]
    return cut[::-1]


def pack(lengths: list[int], limit: int) -> list[list[int]]:
    """Numbers put into as few sequences of at most `limit` tokens as first-fit decreasing needs."""
    packed: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        place = next((at for at, left in enumerate(room) if left >= lengths[number]), len(room))
        if place == len(room):
            packed.append([])
            room.append(limit)
        packed[place].append(number)
        room[place] -= lengths[number]
    return packed


class Rows:
    """The rows of a training as tensors, made once. `packed` is the tokens of a sequence that takes several rows, one
    behind the other (0: each row has its own)."""

    def __init__(self, rows: list[Row], pad: int, packed: int = 0):
        import torch

        self.rows, self.pad, self.packed = rows, pad, packed
        self.sources = sorted({row.source for row in rows} - {""})
        self._ids = [torch.tensor(row.ids) for row in rows]

    def plan(self, numbers: list[int], micro: int, device: str) -> list[list[list[int]]]:
        """The rows of a step as batches of sequences of rows; `micro` is the most rows at once (0: any number) and
        `device` a name of `AT_ONCE`."""
        tokens, overhead = AT_ONCE.get(device, ELSEWHERE)
        lengths = [len(self.rows[row].ids) for row in numbers]
        most = micro or len(numbers)
        if not self.packed:
            return [[[numbers[at]] for at in part] for part in parts(lengths, most, tokens, overhead)]
        order = sorted(range(len(numbers)), key=lambda at: (lengths[at], at))
        plan = []
        for start in range(0, len(order), most):
            part = order[start : start + most]
            sequences = [[part[at] for at in one] for one in pack([lengths[at] for at in part], self.packed)]
            totals = [sum(lengths[at] for at in one) for one in sequences]
            for batch in parts(totals, len(totals), tokens, overhead):
                plan.append([[numbers[at] for at in sequences[number]] for number in batch])
        return plan

    def shared(
        self, numbers: list[int], micro: int, device: str, rank: int, ranks: int
    ) -> list[tuple[list[list[int]], float]]:
        """The batches of a step that `rank` takes, each with its weight: every rank takes equally many, and those of
        weight 0 only keep the ranks in step. Rows are dealt by length."""
        if ranks == 1:
            return [(batch, 1.0) for batch in self.plan(numbers, micro, device)]
        order = sorted(numbers, key=lambda number: (len(self.rows[number].ids), number))
        dealt = [order[first::ranks] for first in range(ranks)]
        plans = [self.plan(part, micro, device) if part else [] for part in dealt]
        missing = max(map(len, plans)) - len(plans[rank])
        idle: list[list[int]] = [[order[0]]]
        return [(batch, 1.0) for batch in plans[rank]] + [(idle, 0.0)] * missing

    def tensors(self, batch: list[list[int]], device: Any) -> dict[str, Any]:
        """`input_ids` and `attention_mask`, sequences × longest, padded on the right; of the supervised tokens, one
        behind the other, `targets`, the `places` whose logits predict them (in the flattened ids), and `sources`.

        Where a sequence has several rows there are `position_ids` and no mask: they start again with each row, and once
        more where the padding begins.
        """
        import torch

        longest = max(sum(len(self.rows[row].ids) for row in sequence) for sequence in batch)
        longest += -longest % WIDTH.get(torch.device(device).type, WIDTH_ELSEWHERE)
        ids = torch.full((len(batch), longest), self.pad, dtype=torch.long)
        positions, mask = torch.zeros_like(ids), torch.zeros_like(ids)
        places, targets, sources = [], [], []
        for line, sequence in enumerate(batch):
            at = 0
            for number in sequence:
                row, row_ids = self.rows[number], self._ids[number]
                ids[line, at : at + len(row_ids)] = row_ids
                positions[line, at : at + len(row_ids)] = torch.arange(len(row_ids))
                supervised = torch.arange(row.first + 1 - row.first_counts, len(row_ids)).clamp(min=row.first)
                places.append(line * longest + at + supervised - 1)
                targets.append(row_ids[supervised])
                sources += [self.sources.index(row.source)] * row.supervised if row.source else []
                at += len(row_ids)
            mask[line, :at] = 1
            positions[line, at:] = torch.arange(longest - at)
        several = any(len(sequence) > 1 for sequence in batch)
        made = {"input_ids": ids} | ({"position_ids": positions} if several else {"attention_mask": mask})
        made |= {"places": torch.cat(places), "targets": torch.cat(targets), "sources": torch.tensor(sources).long()}
        return {name: value.to(device, non_blocking=True) for name, value in made.items()}
