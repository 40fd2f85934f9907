"""How alike sources write: cosines of their answers to the same prompt, above those of answers to different prompts.

The excess is a covariance over prompts, and `alike` its correlation: 1 if two sources always give the same vector, 0 if
their answers to one prompt are no more alike than those to different prompts. A pair depends on no other source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.estimates import Measure, Statistic, estimates, jackknife, prompt_groups
from synthdiv.measures.ngrams import ngrams
from synthdiv.measures.spectrum import effective_number
from synthdiv.measures.vectors import unit_vectors
from synthdiv.measures.words import words

FEW = "fewer than two prompts that both sources answer, or a source gives the same vector to each"
SIMILARITY = Measure("similarity", "cosine", False, FEW, -2, 2)
ALIKE = Measure("alike", "correlation", False, FEW, -1, 1)
VOICES = (Measure("voices", "sources", True, FEW, 1), Measure("voices_vendi", "sources", True, FEW, 1))


def source_similarity(vectors: Mapping[str, Any], seed: int = 0) -> list[Score]:
    """Return how alike sources answer, and how many voices they are.

    `vectors` has a matrix (P, d) for each source, dense or sparse, whose row p is its answer to prompt p, the same p in
    all; a row that is zero or not finite is no answer. `similarity/A+B` is the mean cosine of answers to the same
    prompt minus that of answers to different prompts; `alike/A+B` that excess / the geometric mean of those of A and B
    with themselves, and `alike` its mean over pairs. `voices` is K² / the sum of `alike` over all K² pairs: that many
    independent sources have a mean as variable (Leinster and Cobbold 2012, Ecology 93, order 2, equal weights; Kish's
    effective sample size). `voices_vendi` is the Vendi score of order 1 of `alike`. Both are 1 (all the same) to K.

    Samples of one source are not alike either: compare with the voices of as many of them. Jackknife intervals over
    prompts. Raises ValueError for fewer than two sources or different numbers of prompts.
    """
    names, k = list(vectors), len(vectors)
    if k < 2 or len({matrix.shape[0] for matrix in vectors.values()}) > 1:
        raise ValueError(f"{k} sources: needs two or more, with one row for each prompt in the same order")
    pairs = np.triu_indices(k, 1)
    units = [unit_rows(matrix) for matrix in vectors.values()]
    valid = np.array([unit.indptr[1:] > unit.indptr[:-1] for unit in units])
    group = prompt_groups(valid.shape[1], seed)
    matrices = excess_and_alike(units, valid, group)

    def statistic(keep: np.ndarray) -> list[float]:
        excess, alike = matrices(keep)
        total = float(alike.sum())
        vendi = math.nan if math.isnan(total) else effective_number(alike / k, 1)
        whole = [float(alike[pairs].mean()), k**2 / max(total, k), vendi]  # less alike than chance: K voices
        return [*excess[pairs].tolist(), *alike[pairs].tolist(), *whole]

    of_pairs = [m._replace(name=f"{m.name}/{a}+{b}") for m in (SIMILARITY, ALIKE) for a, b in combinations(names, 2)]
    measures = [*of_pairs, ALIKE, *(each._replace(high=float(k)) for each in VOICES)]
    both = [int((valid[a] & valid[b]).sum()) for a, b in zip(*pairs, strict=True)]
    of_set = (min(both), int((~valid).any(axis=0).sum()))  # n of the pair that has the fewest
    counts = [*[(n, len(group) - n) for n in both] * 2, *[of_set] * (1 + len(VOICES))]
    results = estimates(measures, *jackknife(statistic, np.bincount(group)), len(group))
    notes = [
        f"{missing} of {len(group)} prompts lack the vector of a source" if missing else "" for _, missing in counts
    ]
    return [replace(e, n=n, note=note).score() for e, (n, _), note in zip(results, counts, notes, strict=True)]


def excess_and_alike(units: Sequence[Any], valid: np.ndarray, group: np.ndarray) -> Statistic:
    """Return the function that gives the excess cosine and `alike` (K, K), NaN where undefined, of the groups that are
    kept. `units` are K sparse matrices of unit rows, `valid` (K, P) which rows are answers, `group` (P,) their groups;
    all sums are by group: of cosines of the same prompt, of prompts that both answer, and of all rows."""
    from scipy.sparse import csr_array, vstack

    groups, k = int(group.max(initial=0)) + 1, len(units)
    member = csr_array((np.ones(len(group)), (group, np.arange(len(group)))), (groups, len(group)))
    same = np.array([[member @ np.asarray(a.multiply(b).sum(axis=1)).ravel() for b in units] for a in units])
    both = np.array([[member @ (a & b).astype(float) for b in valid] for a in valid])
    totals = vstack([member @ unit for unit in units])
    cross = (totals @ totals.T).toarray().reshape(k, groups, k, groups).transpose(0, 2, 1, 3)

    def matrices(keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mask = keep[:groups]
        cosines, prompts = same[..., mask].sum(axis=-1), both[..., mask].sum(axis=-1)
        others = np.outer(prompts.diagonal(), prompts.diagonal()) - prompts
        with np.errstate(all="ignore"):
            different = (cross[..., mask, :][..., mask].sum(axis=(-2, -1)) - cosines) / others
            excess = np.where(prompts > 1, cosines / prompts - different, math.nan)
            spread = np.where(excess.diagonal() > 1e-9, excess.diagonal(), math.nan)
            return excess, (excess / np.sqrt(np.outer(spread, spread))).clip(-1, 1)

    return matrices


def unit_rows(matrix: Any) -> Any:
    """Return the rows (P, d) of a dense or sparse matrix at length 1, sparse; empty where zero or not finite."""
    from scipy.sparse import csr_array, diags_array, issparse

    if not issparse(matrix):
        return csr_array(np.nan_to_num(unit_vectors(np.asarray(matrix))))
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    rows = csr_array(diags_array(1 / np.where(length > 0, length, 1.0)) @ matrix)
    rows.eliminate_zeros()
    return rows


def ngram_vectors(texts: Mapping[str, Sequence[str]], n: int = 2) -> dict[str, Any]:
    """Return for each source the word n-grams of its `texts` (P,) as a sparse matrix (P, d) of 0 and 1. The cosine of
    two rows is n-grams in both / the geometric mean of their numbers (Ochiai 1957). A text of fewer than n words is
    a row of zeros."""
    from scipy.sparse import csr_array

    size = {name: len(rows) for name, rows in texts.items()}
    occurrences = ngrams([words(text) for rows in texts.values() for text in rows], n).orders[n - 1]
    shape = (sum(size.values()), int(occurrences.code.max(initial=-1)) + 1)
    matrix = csr_array((np.ones(len(occurrences.code)), (occurrences.text, occurrences.code)), shape)
    matrix.data[:] = 1.0  # an n-gram that occurs again
    ends = np.cumsum([0, *size.values()]).tolist()
    return {name: matrix[start:end] for name, start, end in zip(size, ends, ends[1:], strict=False)}
