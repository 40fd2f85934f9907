"""How alike sources write: cosines of their answers to the same prompt, above those of answers to different prompts.

Different models write alike, so four sources are not four voices. The excess of the same prompt over different prompts
is a covariance over prompts, and `alike`, its correlation, depends on the two sources of a pair only: 1 if they always
give the same vector, 0 if their answers to one prompt are no more alike than those to different prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

from synthdiv.measures.estimates import Measure, estimates, jackknife, prompt_groups
from synthdiv.measures.ngrams import ngrams
from synthdiv.measures.spectrum import effective_number
from synthdiv.measures.vectors import unit_vectors
from synthdiv.measures.words import words

if TYPE_CHECKING:
    import numpy as np

    from synthdiv.core.types import Score

FEW = "fewer than two prompts that both sources answer, or a source gives the same vector to each"
SIMILARITY = Measure("similarity", "cosine", False, FEW, -2, 2)
ALIKE = Measure("alike", "correlation", False, FEW, -1, 1)
OUTSIDE = Measure("alike_outside", "correlation", None, "no source outside, or " + FEW, -1, 1)
VOICES = (Measure("voices", "sources", True, FEW, 1), Measure("voices_vendi", "sources", True, FEW, 1))


def source_similarity(
    vectors: Mapping[str, Any], sets: Mapping[str, Sequence[str]] | None = None, seed: int = 0
) -> list[Score]:
    """Return how alike sources answer, and how many voices they are.

    `vectors` has a matrix (P, d) for each source, dense or sparse, whose row p is its answer to prompt p, the same p in
    all; a row that is zero or not finite is no answer. For each pair of sources: `similarity/A+B`, the mean cosine of
    answers to the same prompt minus that of answers to different prompts; and `alike/A+B`, that excess divided by the
    geometric mean of those of A and B with themselves. For `sets` of sources by name (default: all of them):

    - `alike/SET`: mean of its pairs; `alike_outside/SET`: mean of the pairs of a member and a source outside of it.
    - `voices/SET`: K² / sum of `alike` over all K² pairs, 1 (all the same) to K: that many independent sources have a
      mean as variable (Leinster and Cobbold 2012, Ecology 93, order 2, equal weights; Kish's effective sample size).
    - `voices_vendi/SET`: the Vendi score of order 1 of `alike`, 1 to K (Friedman and Dieng 2023).

    Samples of one source are also not alike: compare with the voices of as many samples of one source, given as
    sources. Jackknife intervals over prompts; n counts prompts. NaN with a note as each measure says. Raises ValueError
    for fewer than two sources, for different numbers of prompts, or a set with an unknown source.
    """
    names = list(vectors)
    pairs, groups = list(combinations(range(len(names)), 2)), {"all": names} if sets is None else sets
    unknown = {name for members in groups.values() for name in members} - {*names}
    if len(names) < 2 or unknown or len({matrix.shape[0] for matrix in vectors.values()}) > 1:
        raise ValueError(f"needs two sources or more, with as many rows each; unknown in sets: {sorted(unknown)}")
    sums = Sums.of(list(vectors.values()), seed)
    of_sets = [[names.index(name) for name in members] for members in groups.values()]
    measures = [m._replace(name=f"{m.name}/{names[i]}+{names[j]}") for m in (SIMILARITY, ALIKE) for i, j in pairs]
    for name, members in groups.items():
        of_set = [ALIKE, *(each._replace(high=float(len(members))) for each in VOICES)]
        of_set += [OUTSIDE] * (len(members) < len(names))
        measures += [each._replace(name=f"{each.name}/{name}") for each in of_set]

    def statistic(keep: np.ndarray) -> list[float]:
        excess, alike = sums.matrices(keep)
        of_pairs = [matrix[pair] for matrix in (excess, alike) for pair in pairs]
        return [float(value) for value in chain(of_pairs, *(set_values(alike, members) for members in of_sets))]

    value, pseudo = jackknife(statistic, sums.sizes)
    return [each.score() for each in estimates(measures, value, pseudo, int(sums.sizes.sum()), note=sums.note)]


def set_values(alike: np.ndarray, members: Sequence[int]) -> list[float]:
    """Return `alike`, `voices`, `voices_vendi`, and with sources outside `alike_outside`, of a set of sources."""
    import numpy as np

    inside = alike[np.ix_(members, members)]
    rest = [other for other in range(len(alike)) if other not in members]
    count, total = len(members), float(inside.sum())
    outside = [float(alike[np.ix_(members, rest)].mean())] if rest else []
    if count < 2 or math.isnan(total):
        return [math.nan] * 3 + outside
    voices = count**2 / max(total, count)  # less alike than chance: as many as there are
    return [(total - count) / (count * (count - 1)), voices, effective_number(inside / count, 1), *outside]


@dataclass(frozen=True, eq=False)
class Sums:
    """What the similarities of K sources need, by jackknife group of prompts (G): `same` (G, K, K), sums of cosines of
    answers to the same prompt; `both` (G, K, K), prompts that both answer; `cross` (G, G, K, K), sums of cosines over
    all prompts of two groups; `count` (G, K), answers; `sizes` (G,), prompts."""

    same: np.ndarray
    both: np.ndarray
    cross: np.ndarray
    count: np.ndarray
    sizes: np.ndarray
    note: str

    @classmethod
    def of(cls, matrices: Sequence[Any], seed: int) -> Sums:
        import numpy as np
        from scipy.sparse import csr_array, vstack

        units = [unit_rows(matrix) for matrix in matrices]
        valid = np.array([unit.indptr[1:] > unit.indptr[:-1] for unit in units])  # (K, P)
        prompts, k = valid.shape[1], len(units)
        group = prompt_groups(prompts, seed)
        groups = int(group.max(initial=0)) + 1
        member = csr_array((np.ones(prompts), (group, np.arange(prompts))), (groups, prompts))
        same, both = np.zeros((groups, k, k)), np.zeros((groups, k, k))
        for i in range(k):
            for j in range(i, k):
                cosine = np.asarray(units[i].multiply(units[j]).sum(axis=1)).ravel()
                same[:, i, j] = same[:, j, i] = np.bincount(group, cosine, groups)
                both[:, i, j] = both[:, j, i] = np.bincount(group, valid[i] & valid[j], groups)
        totals = vstack([member @ unit for unit in units])
        cross = (totals @ totals.T).toarray().reshape(k, groups, k, groups).transpose(1, 3, 0, 2)
        missing = int((~valid).any(axis=0).sum())
        note = f"{missing} of {prompts} prompts lack the vector of a source" if missing else ""
        count = np.stack([np.bincount(group, each, groups) for each in valid], axis=1)
        return cls(same, both, cross, count, np.bincount(group, minlength=groups), note)

    def matrices(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the excess cosine and `alike` (K, K) on the kept groups, NaN where undefined."""
        import numpy as np

        kept = keep[: len(self.sizes)]
        same, both = self.same[kept].sum(axis=0), self.both[kept].sum(axis=0)
        count, cross = self.count[kept].sum(axis=0), self.cross[kept][:, kept].sum(axis=(0, 1))
        with np.errstate(all="ignore"):
            excess = np.where(both > 1, same / both - (cross - same) / (np.outer(count, count) - both), math.nan)
            spread = np.where(excess.diagonal() > 1e-9, excess.diagonal(), math.nan)
            return excess, (excess / np.sqrt(np.outer(spread, spread))).clip(-1, 1)


def unit_rows(matrix: Any) -> Any:
    """Return the rows (P, d) of a dense or sparse matrix at length 1, sparse; empty where zero or not finite."""
    import numpy as np
    from scipy.sparse import csr_array, issparse

    if not issparse(matrix):
        return csr_array(np.nan_to_num(unit_vectors(np.asarray(matrix))))
    rows = csr_array(matrix, dtype=float)
    rows.eliminate_zeros()
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    rows.data /= np.repeat(length, np.diff(rows.indptr))
    return rows


def ngram_vectors(texts: Mapping[str, Sequence[str]], n: int = 2) -> dict[str, Any]:
    """Return for each source the word n-grams of its `texts` (P,) as a sparse matrix (P, d) of 0 and 1. The cosine of
    two rows is n-grams in both / the geometric mean of their numbers (Ochiai 1957). A text of fewer than n words is
    a row of zeros."""
    import numpy as np
    from scipy.sparse import csr_array

    size = {name: len(rows) for name, rows in texts.items()}
    occurrences = ngrams([words(text) for rows in texts.values() for text in rows], n).orders[n - 1]
    shape = (sum(size.values()), int(occurrences.code.max(initial=-1)) + 1)
    matrix = csr_array((np.ones(len(occurrences.code)), (occurrences.text, occurrences.code)), shape)
    matrix.data[:] = 1.0  # an n-gram that occurs again
    ends = np.cumsum([0, *size.values()]).tolist()
    return {name: matrix[start:end] for name, start, end in zip(size, ends, ends[1:], strict=False)}
