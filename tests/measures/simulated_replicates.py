"""Coverage and false positives of the comparison of two arms, simulated.

python -m tests.measures.simulated_replicates      prints the table of docs/statistics.md
"""

from __future__ import annotations

import numpy as np

from synthdiv.measures.replicates import effect, replicate_error

REPLICATES, RATIOS, LEAST = (2, 3, 5, 10), (0.1, 1.0, 10.0), 0.93
PROMPTS, ARMS = 100, 6


def coverage(replicates: int, ratio: float, studies: int = 2000) -> tuple[float, float]:
    """The share of studies whose 95 % interval holds the true difference of 0, with the error of the comparison alone
    and with that of six arms. `ratio` is the variance of a model's effect to that of a mean over prompts."""
    random, hits = np.random.default_rng([replicates, int(10 * ratio)]), np.zeros(2)
    for _ in range(studies):
        prompts = random.normal(size=(ARMS, PROMPTS, 1))
        models = np.sqrt(ratio / PROMPTS) * random.normal(size=(ARMS, 1, replicates))
        arms = (
            prompts + models + random.normal(size=(1, 1, replicates)) + random.normal(size=(ARMS, PROMPTS, replicates))
        )
        error = replicate_error(arms.mean(axis=1))
        for at, made in enumerate((effect(arms[0] - arms[1]), effect(arms[0] - arms[1], error))):
            low, high = made.interval()
            hits[at] += low <= 0 <= high
    return tuple(hits / studies)


if __name__ == "__main__":
    for count in REPLICATES:
        shares = [coverage(count, ratio) for ratio in RATIOS]
        print(f"| {count} | " + " | ".join(f"{100 * own:.1f} / {100 * pooled:.1f}" for own, pooled in shares) + " |")
