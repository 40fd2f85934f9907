"""Material of the tests of measures: made-up and real answers, random vectors, and plain definitions."""

from __future__ import annotations

import gzip
import json
import math
import random
from itertools import islice

import numpy as np
import pytest
from scipy import stats

from synthdiv.measures import distinct_n, heaps, ngram_entropy, self_bleu
from synthdiv.measures.estimates import prompt_groups
from synthdiv.measures.intervals import bounded_interval
from tests.conftest import ROOT

DATA = ROOT.parent / "shared" / "data"
HUMAN, SYNTHETIC = "instructions_human.jsonl.gz", "instructions_synthetic.jsonl.gz"


def mean_interval(values) -> tuple[float, float]:
    """The t interval of the mean of `values`."""
    return stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))


def real_rows(name: str, count: int, skip: int = 0) -> list[dict[str, str]]:
    """`count` rows of a file of real answers; the test skips where the file is not there."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no real text: {path} is not there")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, skip, skip + count)]


def real_answers(name: str, count: int, skip: int = 0) -> list[str]:
    return [row["response"] for row in real_rows(name, count, skip)]


def made_answers(
    seed: int, prompts: int = 40, samples: int = 2, words: int = 12, vocabulary: int = 300, topics: int | None = None
) -> dict[str, list[str]]:
    """Answers to `prompts` prompts, drawn by rank^-1; a fifth of each is about the prompt's topic, drawn by `topics`.

    Arms with the same `topics` answer the same prompts.
    """
    rng, topic = random.Random(seed), random.Random(seed if topics is None else topics)
    names = [f"w{i}" for i in range(vocabulary)]
    weights = [1 / (rank + 1) for rank in range(vocabulary)]
    actual = {}
    for prompt in range(prompts):
        about = topic.sample(range(vocabulary), 3)
        drawn = [rng.choices(names, weights, k=rng.randint(words - 3, words + 3)) for _ in range(samples)]
        actual[f"p{prompt}"] = [
            " ".join(names[rng.choice(about)] if rng.random() < 0.2 else word for word in answer) for answer in drawn
        ]
    return actual


def cloud(seed, n, d=6, shift=0.5, dtype=float):
    """Normal vectors (n, d) around `shift`."""
    return (np.random.default_rng(seed).normal(size=(n, d)) + shift).astype(dtype)


def count_measures(texts: list[str]) -> list[float]:
    """COUNT_MEASURES by the functions that take texts."""
    counts = [measure(texts, n).value for measure in (distinct_n, ngram_entropy) for n in (1, 2, 3)]
    return [self_bleu(texts, 3).value, *counts, *(score.value for score in heaps(texts))]


def left_out_interval(value, measure, units, seed, low=-math.inf, high=math.inf):
    """The jackknife interval of `value`, between bounds; `measure` is computed anew on each mask (units,) of kept
    prompts. Busing et al. 1999, eq. 7 and 8."""
    group = prompt_groups(units, seed)
    groups = group.max() + 1
    h = units / np.bincount(group)
    pseudo = np.array([h[j] * value - (h[j] - 1) * measure(group != j) for j in range(groups)])
    scaled = (pseudo - (pseudo / h).sum()) * np.sqrt((groups - 1) / (h - 1))
    return bounded_interval(value, stats.t.ppf(0.975, groups - 1) * stats.sem(scaled), low, high)
