"""Which of many vectors a subset takes: as spread out as possible, as close to a few centres as possible, or between.

Spread out: the vectors are partitioned first (k-means), farthest-first traversal orders each part (Gonzalez 1985), and
the orders are merged by the distance at which each vector entered. That is the quadratic traversal of the whole set
but for borders between parts, in memory and time that are nearly linear in the number of vectors.
"""

from __future__ import annotations

from synthdiv.core.lazy import np

PART = 1000  # vectors of a part
CENTRES = 8  # of the least diverse subset
STEPS = 5  # of k-means
SPARE = 3  # vectors ordered in a part, as a multiple of its share of the subset
BLOCK = 4096  # vectors whose distances are computed at once


def choose(vectors: np.ndarray, count: int, level: float | None, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the indices of `count` of the unit `vectors` (n, d), at most one of each group (n,), in their order.

    `level` 1 takes the most spread out ones, 0 those nearest to the medoids of a few parts, a value between a mixture:
    that share of the first, and the rest by the second order. None takes random ones. Fewer than `count` groups give
    fewer indices.
    """
    if level is None:
        return np.sort(first_of(np.random.default_rng(seed).permutation(len(vectors)), groups, count))
    spread, order = round(level * count), central_order(vectors, seed)
    if spread:
        order = np.concatenate([first_of(spread_order(vectors, spread, groups, seed), groups, spread), order])
    return np.sort(first_of(order, groups, count))


def first_of(order: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """The first index of each group in an order, at most `count`."""
    return order[np.sort(np.unique(groups[order], return_index=True)[1])[:count]]


def spread_order(vectors: np.ndarray, count: int, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """About `SPARE` * `count` indices in the order in which they spread out most."""
    parts, _ = partition(vectors, max(1, len(vectors) // PART), seed)
    orders, distances = [], []
    for members in parts:
        quota = min(len(members), 1 + SPARE * count * len(members) // len(vectors))
        order, entered = farthest_first(vectors[members], quota, groups[members], seed)
        orders.append(members[order])
        distances.append(entered)
    merged = np.concatenate(orders)[np.argsort(-np.concatenate(distances), kind="stable")]
    entered = np.empty(len(merged))  # from those of all parts before, because parts have borders
    for at in range(0, len(merged), BLOCK):
        block = slice(at, at + BLOCK)
        cosines = vectors[merged[block]] @ vectors[merged[: at + BLOCK]].T
        cosines[np.triu(np.ones_like(cosines, dtype=bool), at)] = -1
        entered[block] = 1 - cosines.max(axis=1)
    return merged[np.argsort(-entered, kind="stable")]


def farthest_first(vectors: np.ndarray, count: int, groups: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` indices, beginning with the vector nearest to the mean (with another seed than 0: a random one):
    each next one is the farthest from those before, of a group that has none; and the cosine distance at which each
    entered."""
    first = int(np.random.default_rng(seed).integers(len(vectors)) if seed else
                (vectors @ vectors.mean(axis=0)).argmax())  # fmt: skip
    order, entered = [first], [2.0]
    nearest = 1 - vectors @ vectors[first]
    while len(order) < count:
        nearest[groups == groups[order[-1]]] = -np.inf
        farthest = int(nearest.argmax())
        if nearest[farthest] == -np.inf:
            break
        order.append(farthest)
        entered.append(float(nearest[farthest]))
        nearest = np.minimum(nearest, 1 - vectors @ vectors[farthest])
    return np.array(order), np.array(entered)


def central_order(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """All indices, by their rank of distance from the medoid of their part: of each part the same share comes first."""
    parts, centres = partition(vectors, CENTRES, seed)
    ranks = np.empty(len(vectors))
    for members, centre in zip(parts, centres, strict=True):
        medoid = vectors[members[int((vectors[members] @ centre).argmax())]]
        ranks[members[np.argsort(-(vectors[members] @ medoid), kind="stable")]] = np.arange(len(members)) / len(members)
    return np.argsort(ranks, kind="stable")


def partition(vectors: np.ndarray, count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The indices of each part of k-means on directions that has members, and its centre."""
    random = np.random.default_rng(seed)
    count = min(count, len(vectors))
    centres = vectors[random.permutation(len(vectors))[:count]]
    for _ in range(STEPS):
        labels = (vectors @ centres.T).argmax(axis=1)
        order = np.argsort(labels, kind="stable")
        parts = [part for part in np.split(order, np.searchsorted(labels[order], np.arange(1, count))) if len(part)]
        centres = np.stack([vectors[part].sum(axis=0) for part in parts])
        count = len(parts)
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return parts, centres
