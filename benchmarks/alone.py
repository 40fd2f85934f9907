"""One piece of work of `measures.py` in a process of its own, whose memory nothing else uses; prints JSON.

python benchmarks/alone.py bleu COUNT      Self-BLEU-3 of so many sentences: the most bytes held while measuring
python benchmarks/alone.py cosine FILE     mean cosine distance of the vectors in a file: peak of the whole process
"""

from __future__ import annotations

import json
import resource
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import material
import numpy as np

from synthdiv.measures import mean_cosine_distance
from synthdiv.measures.bleu import self_bleu_of, tokens_13a
from synthdiv.measures.ngrams import ngrams


def bleu(count: str) -> dict[str, float]:
    """Python and numpy both report to tracemalloc. The sentences themselves are not counted."""
    texts = material.sentences(int(count))
    tracemalloc.start()
    table = ngrams(tokens_13a(texts), 3)
    self_bleu_of(table, table.lengths, np.ones(len(texts), dtype=bool))
    return {"bytes": tracemalloc.get_traced_memory()[1], "ngrams": sum(len(order.code) for order in table.orders)}


class Watched(np.memmap):
    """A mapped file that counts the rows which are read."""

    rows = 0

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        Watched.rows += len(part)
        return part


def cosine(path: str) -> dict[str, float]:
    vectors = np.load(path, mmap_mode="r").view(Watched)
    begun = time.perf_counter()
    score = mean_cosine_distance(vectors)
    seconds = time.perf_counter() - begun
    passes = Watched.rows / len(vectors)
    return {
        "bytes": peak(),
        "seconds": seconds,
        "passes": passes,
        "value": score.value,
        "width": score.high - score.low,
    }


def peak() -> int:
    """The most bytes that this process had in memory. Where there is no /proc, not less than its parent had then."""
    status = Path("/proc/self/status")
    if status.is_file():
        (actual,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(actual.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(json.dumps({"bleu": bleu, "cosine": cosine}[sys.argv[1]](sys.argv[2])))
