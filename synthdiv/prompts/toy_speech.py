"""A distribution over the answers of a toy world: its tokens, decoding, and the information that states a fact."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

from synthdiv.core.lazy import np

PIECE = re.compile(r" ?(?:[A-Za-z]+|\{\w+\})|'s|.", re.DOTALL)  # a word with the blank before it, or a mark


def pieces(text: str) -> list[str]:
    """The tokens of a text of the toy world, which joined give the text."""
    return PIECE.findall(text)


class Speech(NamedTuple):
    """A distribution over answers in one category, with slots {e}, {r} and {v} (right) or {w1}, {w2}, … (wrong)."""

    templates: list[str]
    p: np.ndarray

    def value_nll(self) -> np.ndarray:
        """-log p(value | what precedes it) of each answer: what one who knows every fact cannot know, because other
        answers go on with another word there."""
        mass: dict[tuple[str, ...], float] = defaultdict(float)
        rows = [pieces(template) for template in self.templates]
        for row, share in zip(rows, self.p, strict=True):
            for end in range(len(row) + 1):
                mass[tuple(row[:end])] += float(share)
        places = [next(place for place, piece in enumerate(row) if "{v}" in piece) for row in rows]
        before, after = ([mass[tuple(row[: end + k])] for row, end in zip(rows, places, strict=True)] for k in (0, 1))
        return np.log(before) - np.log(after)

    def decoded(self, temperature: float, top_p: float) -> Speech:
        """The answers drawn token by token, as a model's are: at each node of their trie the shares of the next tokens
        to the power 1 / temperature (0: all to the first of the likeliest), then the fewest that have `top_p`."""
        if temperature == top_p == 1:
            return self
        rows = [(*pieces(template), "") for template in self.templates]
        q = np.ones(len(rows))

        def walk(members: list[int], depth: int) -> None:
            branches: dict[str, list[int]] = defaultdict(list)
            for row in members:
                branches[rows[row][depth]].append(row)
            mass = np.array([self.p[branch].sum() for branch in branches.values()])
            best = (np.arange(len(mass)) == mass.argmax()).astype(float)
            share = (mass / mass.max()) ** (1 / temperature) if temperature else best
            share /= share.sum()
            order = np.argsort(-share, kind="stable")
            share[order[share[order].cumsum() - share[order] >= top_p]] = 0
            for branch, weight in zip(branches.values(), share / share.sum(), strict=True):
                q[branch] *= weight
                if len(branch) > 1 and weight:
                    walk(branch, depth + 1)

        walk(list(range(len(rows))), 0)
        return Speech(self.templates, q / q.sum())
