"""Selection of diverse subsets, near-duplicates, exact likelihood of the toy world, against limits; exits 1 beyond one.

    python benchmarks/selection.py

spread       10,000 of 100,000 vectors of 384 dimensions (mixtures of Gaussians on the sphere), two threads
objective    mean cosine distance of each chosen vector from the nearest other one: ours over that of farthest-first
             traversal of the whole set, 200 and 500 of 2,000; of random vectors beside it
duplicates   MinHash of 100,000 answers of 20 to 160 words, of which 1,000 are another with a word changed: processor
             time, and the share of these pairs that is reported
likelihood   p(y|x) of 100,000 human answers of the toy world
"""

from __future__ import annotations

import os
import resource
import sys
import time

os.environ["OMP_NUM_THREADS"] = "2"
import numpy as np

from synthdiv.mix.subset import choose, farthest_first
from synthdiv.prompts.split import near_duplicates
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import World
from synthdiv.views.layout import markdown

SECONDS, GIB, SHARE, RECALL, LIKELIHOOD_SECONDS = 60.0, 2.0, 0.95, 0.99, 5.0


def vectors(rows: int, kinds: int, spread: float, d: int = 384) -> np.ndarray:
    """Unit vectors around `kinds` centres, with tails."""
    random = np.random.default_rng(kinds)
    centres = random.normal(size=(kinds, d)) / d**0.5
    noise = random.normal(size=(rows, d)) / d**0.5 * random.lognormal(0, 0.5, (rows, 1))
    points = centres[random.integers(0, kinds, rows)] + spread * noise
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def objective(subset: np.ndarray) -> float:
    cosines = subset @ subset.T
    np.fill_diagonal(cosines, -1)
    return float((1 - cosines.max(axis=1)).mean())


def answers_with_copies(rows: int, copies: int) -> list[str]:
    """Answers of words by Zipf's law, the last ones copies of the first with one word changed."""
    random = np.random.default_rng(0)
    lengths = random.integers(20, 160, rows - copies)
    words = iter(random.zipf(1.3, lengths.sum()) % 50_000)
    texts = [[f"w{next(words)}" for _ in range(length)] for length in lengths]
    texts += [[*text[:-1], "other"] for text in texts[:copies]]
    return [" ".join(text) for text in texts]


def main() -> int:
    rows, good = [], True
    many = vectors(100_000, 1000, 0.7)
    begun = time.perf_counter()
    choose(many, 10_000, 1.0, np.arange(len(many)))
    seconds, gib = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    good &= seconds <= SECONDS and gib <= GIB
    rows.append({"work": "spread", "ours": f"{seconds:.1f} s, {gib:.2f} GiB", "limit": f"{SECONDS:g} s, {GIB:g} GiB"})
    for kinds, spread in ((50, 0.7), (300, 0.4), (1, 20.0)):
        few, each = vectors(2000, kinds, spread), np.arange(2000)
        for count in (200, 500):
            whole = objective(few[farthest_first(few, count, each)[0]])
            ours, random = (objective(few[choose(few, count, level, each)]) / whole for level in (1.0, None))
            good &= ours >= SHARE
            texts = {"ours": f"{ours:.3f} (random {random:.3f})", "limit": f"{SHARE:g}"}
            rows.append({"work": f"objective, {count} of 2,000 in {kinds} kinds"} | texts)
    copied = answers_with_copies(100_000, 1000)
    begun = time.process_time()
    pairs = near_duplicates(copied)
    seconds, planted = time.process_time() - begun, {(at, 99_000 + at) for at in range(1000)}
    recall = len(planted.intersection(pairs)) / len(planted)
    good &= seconds <= SECONDS and recall >= RECALL
    texts = {"ours": f"{seconds:.1f} s, {recall:.1%}", "limit": f"{SECONDS:g} s, {RECALL:.0%}"}
    rows.append({"work": "duplicates"} | texts)
    law = Law(World())
    prompts = law.prompts(3000, "study", 0) * 34
    answers = law.sample(prompts[:100_000], law.human, 0)
    begun = time.perf_counter()
    p = [law.likelihood(prompt, text) for prompt, text in zip(prompts, answers, strict=False)]
    seconds = time.perf_counter() - begun
    good &= seconds <= LIKELIHOOD_SECONDS and min(p) > 0
    rows.append({"work": "likelihood", "ours": f"{seconds:.1f} s", "limit": f"{LIKELIHOOD_SECONDS:g} s"})
    print(markdown(rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
