"""How far a student's law q is from a known human law p: exact sums over the support of p, one value per prompt.

Of each prompt the caller gives p, the probabilities of all human answers, and log q of the same answers in nats, their
end included. Nothing is smoothed: an answer that q cannot give makes the excess NLL infinite, and it is shown so.
q of a string is that of its canonical tokenisation; what q spends on other tokenisations counts as off the support.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from synthdiv.core.types import Score
from synthdiv.measures.intervals import clipped, mean_interval

Arrays = Sequence[np.ndarray]  # one array per prompt
TERCILES = ("head", "middle", "tail")
COVERED = 0.1  # an answer is covered where q gives it at least this share of its probability
SCOPE = "interval over prompts: this model, not this method"


def terciles(p: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for each answer: whether the answers more frequent than it leave it in p's head, middle or tail third.

    Answers are not cut, so the thirds are of equal mass only up to one answer each, and can be empty for few answers.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    found = np.empty(len(p), dtype=int)
    # The slack keeps an even split of equal answers even: three sums of 1/9 exceed 1/3 or not by their last bit.
    found[order] = np.searchsorted([1 / 3 - 1e-9, 2 / 3 - 1e-9], before, side="right")
    return found


def _pairs(p: Arrays, log_q: Arrays) -> list[tuple[np.ndarray, np.ndarray]]:
    """The answers with p > 0 of each prompt; refuses what is no pair of a law and log-likelihoods."""
    pairs = []
    for number, given in enumerate(zip(p, log_q, strict=True)):
        law, likelihood = (np.asarray(array, dtype=float) for array in given)
        if law.shape != likelihood.shape or abs(law.sum() - 1) > 1e-6 or (law < 0).any() or np.isnan(likelihood).any():
            raise ValueError(f"prompt {number}: needs p that sums to 1 and as many log q, none of them NaN")
        pairs.append((law[law > 0], likelihood[law > 0]))
    return pairs


def excess_nll(p: Arrays, log_q: Arrays) -> np.ndarray:
    """E_p[-log q] - H(p) = KL(p || q) per prompt, in nats per answer: >= 0, 0 only where q is p; can be infinite."""
    return np.array([law @ (np.log(law) - likelihood) for law, likelihood in _pairs(p, log_q)])


def excess_nll_per_character(p: Arrays, log_q: Arrays, lengths: Arrays) -> np.ndarray:
    """Excess NLL over the mean number of characters of a human answer to the prompt, in nats per character."""
    characters = [np.dot(law, length) for law, length in zip(p, lengths, strict=True)]
    return excess_nll(p, log_q) / np.array(characters)


def support_mass(log_q: Arrays) -> np.ndarray:
    """The share of q on the human answers of each prompt; above 1 only by rounding of log q."""
    return np.array([np.exp(np.asarray(likelihood, dtype=float)).sum() for likelihood in log_q])


def off_support_rate(log_q: Arrays) -> np.ndarray:
    """The share of q on what no human would answer, per prompt; rounding below 0 is clipped to 0."""
    return np.maximum(1 - support_mass(log_q), 0.0)


def support_divergence(p: Arrays, log_q: Arrays) -> np.ndarray:
    """KL(q' || p) in nats per answer, q' being q on the human answers renormalised; NaN where q gives none of them."""
    values = []
    for law, likelihood in _pairs(p, log_q):
        top = likelihood.max()
        if top == -math.inf:
            values.append(math.nan)
            continue
        inner = likelihood - (top + math.log(np.exp(likelihood - top).sum()))
        given = inner > -math.inf
        values.append(np.exp(inner[given]) @ (inner[given] - np.log(law[given])))
    return np.array(values)


def coverage(p: Arrays, log_q: Arrays) -> np.ndarray:
    """The share of p's mass on answers with q >= p / 10: one row per prompt; all answers, then head, middle and tail.

    Each tercile's share is of its own mass, so 1 is full coverage everywhere; NaN where a tercile is empty.
    """
    rows = np.full((len(p), 1 + len(TERCILES)), math.nan)
    for row, (law, likelihood) in zip(rows, _pairs(p, log_q), strict=True):
        covered = likelihood >= np.log(law) + math.log(COVERED) - 1e-9  # a tie counts, whatever its last bit
        third = terciles(law)
        for column, part in enumerate([third >= 0, *(third == number for number in range(len(TERCILES)))]):
            if part.any():
                row[column] = law[part & covered].sum() / law[part].sum()
    return rows


def dialect_shares(posteriors: Arrays) -> np.ndarray:
    """Mean posterior of each dialect over a prompt's sampled answers: one row per prompt, its last column `off`.

    `posteriors` has one (answers, dialects) array per prompt; an answer no dialect would give is a row of zeros.
    """
    means = np.array([np.mean(rows, axis=0) for rows in posteriors])
    return np.hstack([means, 1 - means.sum(axis=1, keepdims=True)]) if len(means) else means


def mean_score(name: str, values: np.ndarray, unit: str, higher_is_better: bool | None = None, note: str = "") -> Score:
    """The mean over prompts with a t interval; NaN values are left out and counted in the note."""
    values = np.asarray(values, dtype=float)
    kept = values[~np.isnan(values)]
    notes = [note] if note else []
    if len(kept) < len(values):
        notes.append(f"undefined for {len(values) - len(kept)} of {len(values)} prompts")
    low = high = math.nan
    if not len(kept):
        return Score(
            name, math.nan, 0, unit=unit, higher_is_better=higher_is_better, note="; ".join([*notes, "no prompts"])
        )
    if infinite := int(np.isinf(kept).sum()):
        notes.append(f"infinite for {infinite} of {len(kept)} prompts: q is 0 on a human answer")
    else:
        low, high = clipped(name, unit, *mean_interval(kept))
        notes.append("one prompt has no interval" if len(kept) == 1 else SCOPE)
    return Score(name, float(kept.mean()), len(kept), low, high, unit, higher_is_better, "; ".join(notes))


def truth_values(p: Arrays, log_q: Arrays, lengths: Arrays) -> dict[str, np.ndarray]:
    """Every measure above by its score's name, one value per prompt. `lengths` counts the answers' characters."""
    covered = coverage(p, log_q)
    return {
        "truth/excess_nll": excess_nll(p, log_q),
        "truth/excess_nll_per_character": excess_nll_per_character(p, log_q, lengths),
        "truth/off_support": off_support_rate(log_q),
        "truth/support_kl": support_divergence(p, log_q),
        "truth/coverage": covered[:, 0],
        **{f"truth/coverage_{tercile}": covered[:, 1 + column] for column, tercile in enumerate(TERCILES)},
    }


def truth_scores(p: Arrays, log_q: Arrays, lengths: Arrays) -> list[Score]:
    """The means of `truth_values` over prompts, with intervals."""
    over = support_mass(log_q) - 1
    beyond = f"{(over > 0).sum()} prompts clipped to 0, by at most {over.max():.1g}" if (over > 0).any() else ""
    scores = []
    for name, values in truth_values(p, log_q, lengths).items():
        unit = {"truth/excess_nll": "nats/answer", "truth/support_kl": "nats/answer"}.get(name, "share")
        unit = "nats/character" if name.endswith("per_character") else unit
        note = beyond if name == "truth/off_support" else ""
        scores.append(mean_score(name, values, unit, name.startswith("truth/coverage"), note))
    return scores


def dialect_scores(posteriors: Arrays, dialects: Sequence[str]) -> list[Score]:
    """The share of each dialect, by its name, and of `off` among sampled answers; no share has a better direction."""
    shares = dialect_shares(posteriors)
    columns = shares.T if len(shares) else np.empty((len(dialects) + 1, 0))
    names = [*dialects, "off"]
    return [mean_score(f"truth/dialect/{name}", column, "share") for name, column in zip(names, columns, strict=True)]
