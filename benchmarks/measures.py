"""The measures against their peers and their limits; exits 1 where one falls short.

    python benchmarks/measures.py

Both sides work on the same input in one run, with two threads for linear algebra; times are the best of a few. Texts
are real answers where they are at hand. What is judged of a measure with a peer is its value, like for like: peers give
no interval, and what ours costs with one stands in the line below.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import material
import numpy as np

from synthdiv.measures import mean_cosine_distance, self_bleu, vendi
from synthdiv.measures.bleu import self_bleu_of, tokens_13a
from synthdiv.measures.ngrams import ngrams
from synthdiv.measures.vectors import VectorArm, cosine_of

HEAD = ("work", "ours", "peer", "ratio", "must be", "")
WIDTHS = (60, 9, 9, 7, 12, 5)
OK, SHORT = "ok", "SHORT"
MILLION = 1_000_000


class Row(NamedTuple):
    work: str
    ours: str
    peer: str = "–"
    ratio: str = "–"
    must: str = "not judged"
    verdict: str = ""


def judged(fulfilled: bool) -> str:
    return OK if fulfilled else SHORT


def best(work: Callable[[], Any], times: int) -> tuple[float, Any]:
    """Seconds of the quickest of so many calls, and what the last one gave."""
    quickest, actual = float("inf"), None
    for _ in range(times):
        begun = time.perf_counter()
        actual = work()
        quickest = min(quickest, time.perf_counter() - begun)
    return quickest, actual


def against(
    work: str,
    ours: Callable[[], float],
    peer: Callable[[], float],
    least: float,
    within: float,
    times: int,
    peer_times: int = 2,
) -> Iterator[Row]:
    """How much faster than the peer, and how far from its value; peers that are slow are called twice."""
    seconds, value = best(ours, times)
    other, peer_value = best(peer, peer_times)
    ratio, gap = other / seconds, abs(value - peer_value) / abs(peer_value)
    yield Row(work, timing(seconds), timing(other), f"{ratio:.0f} x", f"{least:g} x", judged(ratio >= least))
    yield Row(
        "  the value", f"{value:.6g}", f"{peer_value:.6g}", f"{gap:.0e}", f"within {within:g}", judged(gap <= within)
    )


def timing(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def with_interval(ours: Callable[[], Any], times: int = 3) -> Row:
    return Row("  with its interval", timing(best(ours, times)[0]))


def self_bleu_of_few() -> Iterator[Row]:
    from sacrebleu.metrics.bleu import BLEU

    texts = material.sentences(500)
    bleu = BLEU(max_ngram_order=3, effective_order=True)

    def ours() -> float:
        table = ngrams(tokens_13a(texts), 3)
        return self_bleu_of(table, table.lengths, np.ones(len(texts), dtype=bool))

    def peer() -> float:
        return float(
            np.mean([bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)])
        )

    yield from against("Self-BLEU-3 of 500 sentences; sacrebleu, each to the rest", ours, peer, 200, 1e-9, 20)
    yield with_interval(lambda: self_bleu(texts), 10)


def self_bleu_of_many() -> Iterator[Row]:
    texts = material.sentences(50_000)
    seconds, _ = best(lambda: self_bleu(texts), 2)
    yield Row(
        "Self-BLEU-3 of 50,000 sentences, with its interval",
        timing(seconds),
        must="60 s",
        verdict=judged(seconds <= 60),
    )
    half, whole = (alone("bleu", str(count)) for count in (25_000, 50_000))
    memory, number = whole["bytes"] / half["bytes"], whole["ngrams"] / half["ngrams"]
    ratio, most = f"{memory:.2f} x", f"{1.1 * number:.2f} x"
    work = f"  memory, to that of 25,000; {number:.2f} x the n-grams"
    ours, peer = (f"{actual['bytes'] / 2**20:.0f} MiB" for actual in (whole, half))
    yield Row(work, ours, peer, ratio, most, judged(memory <= 1.1 * number))


def cosine_of_few() -> Iterator[Row]:
    vectors = np.random.default_rng(0).normal(0.3, 1, (5000, 384)).astype(np.float32)

    def matrix(vectors: np.ndarray) -> float:
        directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = directions @ directions.T
        return float(1 - (cosines.sum() - np.trace(cosines)) / (len(vectors) * (len(vectors) - 1)))

    # No prompts, and no group of them that is left out: the value alone.
    arm = VectorArm(vectors, np.full(len(vectors), -1), np.array([-1]))
    work = "mean cosine distance, 5,000 x 384; full matrix in float64"
    yield from against(work, lambda: cosine_of(arm).value, lambda: matrix(vectors.astype(np.float64)), 50, 1e-9, 50, 4)
    yield Row("  the full matrix in float32", "–", timing(best(lambda: matrix(vectors), 4)[0]))
    yield with_interval(lambda: mean_cosine_distance(vectors), 50)


def cosine_of_many() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        write_vectors(path, MILLION)
        actual = alone("cosine", str(path))
    peak, passes = actual["bytes"] / 2**30, actual["passes"]
    work = "the same, 1,000,000 x 384, streamed from disk"
    yield Row(work, f"{peak:.2f} GiB", f"{8 * MILLION**2 / 1e12:.0f} TB", must="2 GiB", verdict=judged(peak <= 2))
    yield Row(
        "  rows read, to those there are",
        timing(actual["seconds"]),
        ratio=f"{passes:.2f} x",
        must="1 x",
        verdict=judged(passes == 1),
    )


def write_vectors(path: Path, count: int) -> None:
    """In blocks: this process need not hold them all either."""
    random, block = np.random.default_rng(0), 10_000
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (count, 384))
    for start in range(0, count, block):
        vectors[start : start + block] = random.standard_normal((block, 384), np.float32) + np.float32(0.3)
    vectors.flush()


def vendi_of_few() -> Iterator[Row]:
    work = "Vendi score, 3,000 x 384; vendi-score's score_X"
    if importlib.util.find_spec("vendi_score") is None:
        yield Row(work, "–", "missing", "–", "20 x", SHORT)
        print("peer not installed: pip install vendi-score", file=sys.stderr)
        return
    from vendi_score import vendi as peer

    vectors, one_group = np.random.default_rng(0).normal(0.3, 1, (3000, 384)), [0] * 3000  # no interval
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it names a module that scipy has renamed
        yield from against(
            work, lambda: vendi(vectors, prompts=one_group).value, lambda: float(peer.score_X(vectors)), 20, 1e-6, 10
        )
        yield Row("  vendi-score's score_dual", "–", timing(best(lambda: peer.score_dual(vectors), 5)[0]))
    yield with_interval(lambda: vendi(vectors))


def command() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        lines = (json.dumps({"response": text}) + "\n" for text in material.answers(20_000))
        path.write_text("".join(lines), encoding="utf-8")
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "synthdiv", "measure", str(path), "--json"], capture_output=True, text=True
        )
        seconds = time.perf_counter() - begun
    work = "synthdiv measure, 20,000 answers, all lexical measures"
    if done.returncode:
        yield Row(work, "failed", must="60 s", verdict=SHORT)
        print(done.stderr, file=sys.stderr)
        return
    scores = json.loads(done.stdout)
    # within a prompt there is one answer; MTLD has fewer than two factors for each group of prompts
    bare = [x["name"] for x in scores if x["low"] is None and "_within" not in x["name"] and "mtld" not in x["name"]]
    yield Row(work, timing(seconds), must="60 s", verdict=judged(seconds <= 60))
    yield Row(
        "  measures without an interval, but for `_within` and MTLD",
        str(len(bare)),
        must="0",
        verdict=judged(not bare),
    )


def alone(*words: str) -> dict[str, float]:
    """What `alone.py` says of a piece of work in a fresh process."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("alone.py")), *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def line(cells: tuple[str, ...]) -> str:
    first, *rest = (f"{cell:{width}s}" for cell, width in zip(cells, WIDTHS, strict=True))
    return "  ".join([first, *rest]).rstrip()


def main() -> int:
    print(f"texts: {material.origin()}; two threads for linear algebra, {os.cpu_count()} cores\n")
    print(line(HEAD), line(tuple("-" * width for width in WIDTHS)), sep="\n", flush=True)
    short = []
    for part in (self_bleu_of_few, self_bleu_of_many, cosine_of_few, cosine_of_many, vendi_of_few, command):
        for row in part():
            print(line(row), flush=True)
            if row.verdict == SHORT:
                short.append(row.work.strip())
    if short:
        print("\nfalls short: " + "; ".join(short), file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
