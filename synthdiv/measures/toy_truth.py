"""Distance of a student's distribution q from a known human distribution p, by exact sums over the support of p.

For each prompt the caller passes p, the probabilities of all human answers, and log q of the same answers in nats, EOS
included. Nothing is smoothed: an answer of probability 0 under q makes the excess NLL infinite. q of a string is the
probability of its canonical tokenisation; the mass of other tokenisations counts as off the support.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from synthdiv.core.types import Score
from synthdiv.measures.intervals import mean_interval

PromptArrays = Sequence[np.ndarray]  # one array per prompt
TERCILES = ("head", "middle", "tail")
COVERAGE_RATIO = 0.1  # an answer is covered if q >= this ratio times p
INTERVAL_SCOPE = "interval over prompts: this model, not this method"


def terciles(p: np.ndarray) -> np.ndarray:
    """Return 0, 1 or 2 for each answer: the third of the mass of p (head, middle, tail) in which it begins.

    Answers are ordered by decreasing p. They are not divided, so the thirds have equal mass only up to one answer, and
    can be empty for few answers.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    tercile = np.empty(len(p), dtype=int)
    # The tolerance splits equal answers evenly: three times 1/9 can exceed 1/3 by rounding.
    tercile[order] = np.searchsorted([1 / 3 - 1e-9, 2 / 3 - 1e-9], before, side="right")
    return tercile


def _checked_pairs(p: PromptArrays, log_q: PromptArrays) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return p and log q of the answers with p > 0 of each prompt. Raises ValueError for arrays that do not match."""
    pairs = []
    for number, pair in enumerate(zip(p, log_q, strict=True)):
        law, likelihood = (np.asarray(array, dtype=float) for array in pair)
        if law.shape != likelihood.shape or abs(law.sum() - 1) > 1e-6 or (law < 0).any() or np.isnan(likelihood).any():
            raise ValueError(f"prompt {number}: needs p >= 0 that sums to 1 and as many log q, none of them NaN")
        pairs.append((law[law > 0], likelihood[law > 0]))
    return pairs


def excess_nll(p: PromptArrays, log_q: PromptArrays) -> np.ndarray:
    """Return E_p[-log q] - H(p) = KL(p || q) per prompt, in nats per answer: >= 0, 0 only if q = p; can be infinite."""
    return np.array([law @ (np.log(law) - likelihood) for law, likelihood in _checked_pairs(p, log_q)])


def excess_nll_per_character(p: PromptArrays, log_q: PromptArrays, lengths: PromptArrays) -> np.ndarray:
    """Return the excess NLL / the mean number of characters of a human answer to the prompt, in nats per character."""
    characters = [np.dot(law, length) for law, length in zip(p, lengths, strict=True)]
    return excess_nll(p, log_q) / np.array(characters)


def support_mass(log_q: PromptArrays) -> np.ndarray:
    """Return the mass of q on the human answers to each prompt; above 1 only by rounding of log q."""
    return np.array([np.exp(np.asarray(likelihood, dtype=float)).sum() for likelihood in log_q])


def off_support_rate(log_q: PromptArrays) -> np.ndarray:
    """Return the mass of q off the support of p per prompt; rounding below 0 is clipped to 0."""
    return np.maximum(1 - support_mass(log_q), 0.0)


def support_divergence(p: PromptArrays, log_q: PromptArrays) -> np.ndarray:
    """Return KL(q' || p) in nats per answer; q' is q normalised on the human answers. NaN if q has no mass on them."""
    values = []
    for law, likelihood in _checked_pairs(p, log_q):
        top = likelihood.max()
        if top == -math.inf:
            values.append(math.nan)
            continue
        log_conditional = likelihood - (top + math.log(np.exp(likelihood - top).sum()))
        positive = log_conditional > -math.inf
        values.append(np.exp(log_conditional[positive]) @ (log_conditional[positive] - np.log(law[positive])))
    return np.array(values)


def coverage(p: PromptArrays, log_q: PromptArrays) -> np.ndarray:
    """Return the mass of p on answers with q >= p / 10 (prompts, 4): of all answers, head, middle and tail. The share
    of a tercile is relative to its own mass, so 1 is full coverage in every column; NaN for an empty tercile."""
    rows = np.full((len(p), 1 + len(TERCILES)), math.nan)
    for row, (law, likelihood) in zip(rows, _checked_pairs(p, log_q), strict=True):
        covered = (
            likelihood >= np.log(law) + math.log(COVERAGE_RATIO) - 1e-9
        )  # tolerance: a tie counts as covered despite rounding
        third = terciles(law)
        for column, part in enumerate([third >= 0, *(third == number for number in range(len(TERCILES)))]):
            if part.any():
                row[column] = law[part & covered].sum() / law[part].sum()
    return rows


def dialect_shares(posteriors: PromptArrays) -> np.ndarray:
    """Return the mean posterior of each dialect over a prompt's answers (prompts, dialects + 1); last column: `off`.
    `posteriors` has one (answers, dialects) array per prompt; an answer outside all dialects is a row of zeros."""
    means = np.array([np.mean(rows, axis=0) for rows in posteriors])
    return np.hstack([means, 1 - means.sum(axis=1, keepdims=True)]) if len(means) else means


def truth_score(
    name: str, values: np.ndarray, unit: str, higher_is_better: bool | None = None, note: str = ""
) -> Score:
    """Return the mean over prompts with a t interval; NaN values are left out and counted in the note."""
    values = np.asarray(values, dtype=float)
    defined = values[~np.isnan(values)]
    notes = [note] if note else []
    if len(defined) < len(values):
        notes.append(f"undefined for {len(values) - len(defined)} of {len(values)} prompts")
    low = high = math.nan
    if not len(defined):
        return Score(
            name, math.nan, 0, unit=unit, higher_is_better=higher_is_better, note="; ".join([*notes, "no prompts"])
        )
    if infinite := int(np.isinf(defined).sum()):
        notes.append(f"infinite for {infinite} of {len(defined)} prompts: q is 0 on a human answer")
    else:
        low, high = mean_interval(defined)
        if unit.startswith("share"):
            low, high = max(low, 0.0), min(high, 1.0)
        notes.append("one prompt has no interval" if len(defined) == 1 else INTERVAL_SCOPE)
    return Score(name, float(defined.mean()), len(defined), low, high, unit, higher_is_better, "; ".join(notes))


def truth_values(p: PromptArrays, log_q: PromptArrays, lengths: PromptArrays) -> dict[str, np.ndarray]:
    """Return every measure by the name of its score, one value per prompt; `lengths` counts the answers' characters."""
    covered = coverage(p, log_q)
    return {
        "truth/excess_nll": excess_nll(p, log_q),
        "truth/excess_nll_per_character": excess_nll_per_character(p, log_q, lengths),
        "truth/off_support": off_support_rate(log_q),
        "truth/support_kl": support_divergence(p, log_q),
        "truth/coverage": covered[:, 0],
        **{f"truth/coverage_{tercile}": covered[:, 1 + column] for column, tercile in enumerate(TERCILES)},
    }


def truth_scores(p: PromptArrays, log_q: PromptArrays, lengths: PromptArrays) -> list[Score]:
    """Return the means of `truth_values` over prompts, with intervals."""
    excess_mass = support_mass(log_q) - 1
    clip_note = (
        f"{(excess_mass > 0).sum()} prompts clipped to 0, by at most {excess_mass.max():.1g}"
        if (excess_mass > 0).any()
        else ""
    )
    scores = []
    for name, values in truth_values(p, log_q, lengths).items():
        unit = {"truth/excess_nll": "nats/answer", "truth/support_kl": "nats/answer"}.get(name, "share")
        unit = "nats/character" if name.endswith("per_character") else unit
        note = clip_note if name == "truth/off_support" else ""
        scores.append(truth_score(name, values, unit, name.startswith("truth/coverage"), note))
    return scores


def dialect_scores(posteriors: PromptArrays, dialects: Sequence[str]) -> list[Score]:
    """Return the share of each dialect and of `off` among sampled answers; no direction is better."""
    shares = dialect_shares(posteriors)
    columns = shares.T if len(shares) else np.empty((len(dialects) + 1, 0))
    names = [*dialects, "off"]
    return [truth_score(f"truth/dialect/{name}", column, "share") for name, column in zip(names, columns, strict=True)]
