"""Coverage and false positives of the comparison of two arms, simulated.

python -m tests.measures.simulated_replicates      prints the tables of docs/statistics.md
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from synthdiv.measures.replicates import ALPHA, best_on_others, effect, replicate_error

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


def against_best(singles: int, replicates: int, gap: float = 0.0, studies: int = 2000) -> list[float]:
    """The share of studies in which several sources differ from the best of `singles`, though they are equal to it: by
    the t test of the single chosen on other replicates, by p over all singles with their error alone, and pooled.
    Each single is `gap` standard deviations of a model worse than the one before."""
    random, hits = np.random.default_rng([singles, replicates]), np.zeros(3)
    for _ in range(studies):
        arms = random.normal(size=(singles + 1, replicates))
        arms[2:] += gap * np.arange(1, singles)[:, None]
        best = arms[1:][best_on_others(arms[1:], higher_is_better=False), np.arange(replicates)]
        tests = [effect((arms[0] - best)[None]).p()]
        for error in (None, replicate_error(arms)):
            parts = tuple(effect((arms[0] - one)[None], error) for one in arms[1:])
            tests.append(replace(parts[0], parts=parts).p())
        hits += np.array(tests) < ALPHA
    return [float(share) for share in hits / studies]


def uneven(arms: int, replicates: int, noisy: int, times: float, studies: int = 1000) -> list[float]:
    """Where the first `noisy` arms have `times` the spread of the others: the share of studies in which the error is
    not pooled, and in which the first two arms differ, though they are equal."""
    random, hits = np.random.default_rng([arms, replicates, noisy]), np.zeros(2)
    for _ in range(studies):
        levels = random.normal(size=(arms, replicates))
        levels[:noisy] *= times
        error = replicate_error(levels)
        hits += (not error.homogeneous, effect((levels[0] - levels[1])[None], error).p() < ALPHA)
    return [float(share) for share in hits / studies]


def in_rounds(lineages: int, rounds: int, replicates: int, studies: int = 1000) -> list[float]:
    """Where each round adds an error of its own to that of the round before: the share of studies in which two equal
    lineages differ in the last round, with the error of all rounds and with that of the last."""
    random, hits = np.random.default_rng([lineages, rounds, replicates]), np.zeros(2)
    for _ in range(studies):
        levels = random.normal(size=(lineages, rounds, replicates)).cumsum(axis=1)
        for at, arms in enumerate((levels.reshape(-1, replicates), levels[:, -1])):
            hits[at] += effect((levels[0, -1] - levels[1, -1])[None], replicate_error(arms)).p() < ALPHA
    return [float(share) for share in hits / studies]


if __name__ == "__main__":
    for count in REPLICATES:
        shares = [coverage(count, ratio) for ratio in RATIOS]
        print(f"| {count} | " + " | ".join(f"{100 * own:.1f} / {100 * pooled:.1f}" for own, pooled in shares) + " |")
    for number in (2, 4, 8):
        rates = [against_best(number, count, gap) for gap in (0.0, 0.3) for count in REPLICATES[1:]]
        print(f"| {number} | " + " | ".join(" / ".join(f"{100 * rate:.1f}" for rate in each) for each in rates) + " |")
    for number in (3, 4, 8):
        rates = [uneven(number, count, *how) for count in (3, 5)
                 for how in ((0, 1), (1, 3), (1, 10), (1, 50), (number // 2, 5))]  # fmt: skip
        print(f"| {number} | " + " | ".join(" / ".join(f"{100 * rate:.0f}" for rate in each) for each in rates) + " |")
    for shape in ((2, 5, 3), (4, 5, 3), (8, 5, 3), (4, 5, 5)):
        print("in rounds", shape, " / ".join(f"{100 * rate:.0f}" for rate in in_rounds(*shape)))
