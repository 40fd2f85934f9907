"""What both sides of a benchmark of the measures share: two threads, and texts, real ones where they are at hand, else
made up by Zipf's law. Import it before numpy, which reads the number of threads when it loads."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

THREADS = 2
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = str(THREADS)

ANSWERS = Path(__file__).resolve().parents[2] / "shared" / "data" / "instructions_synthetic.jsonl.gz"
VOCABULARY = 50_000
SEED = 7


def answers(count: int) -> list[str]:
    """The first `count` recorded answers of language models, or as many made-up ones of about 170 words."""
    return list(islice(_real() if ANSWERS.is_file() else _synthetic(), count))


def sentences(count: int) -> list[str]:
    """The first `count` sentences of four words or more of these answers."""
    from synthdiv.measures.words import sentences as split

    all_sentences = (one for text in (_real() if ANSWERS.is_file() else _synthetic()) for one in split(text))
    return list(islice((one for one in all_sentences if len(one.split()) >= 4), count))


def origin() -> str:
    return f"real answers, {ANSWERS.name}" if ANSWERS.is_file() else f"made up by Zipf's law ({ANSWERS} is not there)"


def _real() -> Iterator[str]:
    with gzip.open(ANSWERS, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["response"]


def _synthetic() -> Iterator[str]:
    import numpy as np

    random = np.random.default_rng(SEED)
    share = 1 / np.arange(1, VOCABULARY + 1)
    limits = np.cumsum(share / share.sum())
    while True:
        lengths = random.integers(4, 25, random.integers(1, 24))
        ranks = np.searchsorted(limits, random.random(lengths.sum())).tolist()
        words = map("w{}".format, ranks)
        yield " ".join(" ".join(islice(words, length)).capitalize() + "." for length in lengths.tolist())
