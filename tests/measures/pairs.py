"""Pairs of authors with verdicts of a known law."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from synthdiv.measures.pairwise import Pairs

NO = math.nan


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def every_pair(authors, prompts, wins=None, seed=0):
    """Pairs of all authors on each prompt; `wins` of the indices of two authors and random quality is P(first wins)."""
    rng = np.random.default_rng(seed)
    rows = [(p, i, j) for p in range(prompts) for i in range(len(authors)) for j in range(i)]
    prompt, first, second = np.array(rows).T
    length, quality = rng.uniform(-1, 1, (2, len(rows)))
    value = rng.random(len(rows)) if wins is None else wins(first, second, length, quality)
    names = np.array([*authors])
    return Pairs(prompt, names[first], names[second], value, np.full(len(rows), NO), length, quality)


def swapped(pairs, rows):
    """The same pairs, `rows` of them with the roles of first and second exchanged."""
    turn = {name: np.where(rows, 1 - getattr(pairs, name), getattr(pairs, name)) for name in ("wins", "panel")}
    gaps = {name: np.where(rows, -getattr(pairs, name), getattr(pairs, name)) for name in ("length", "quality")}
    first, second = np.where(rows, pairs.second, pairs.first), np.where(rows, pairs.first, pairs.second)
    return replace(pairs, first=first, second=second, **turn, **gaps)
