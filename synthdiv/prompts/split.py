"""Groups of prompts that stay in one split, the split, and the order of the prompts of a split."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.measures.words import spaced
from synthdiv.prompts.table import normalise

SIMILAR = 0.8  # Jaccard similarity of word 3-grams from which two prompts count as near-duplicates


def rank(seed: int, *words: object) -> int:
    """A fixed pseudo-random number for `words`: independent of file order, platform and process."""
    text = "\0".join([str(seed), *map(str, words)])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def largest_remainder(total: int, weights: Sequence[float]) -> list[int]:
    """`total` in whole parts proportional to `weights` (Hamilton's method). Of equal remainders the first gets one."""
    whole = math.fsum(weights)
    shares = [total * weight / whole for weight in weights]
    counts = [math.floor(share + 1e-9) for share in shares]
    order = sorted(range(len(weights)), key=lambda index: (-round(shares[index] - counts[index], 9), index))
    for index in order[: total - sum(counts)]:
        counts[index] += 1
    return counts


def shingles(text: str) -> frozenset[str]:
    """Word 3-grams of the normalised text, or its words if it has fewer than three."""
    words = spaced(normalise(text)).split()
    return frozenset(" ".join(words[i : i + 3]) for i in range(len(words) - 2)) or frozenset(words)


def groups(records: list[dict[str, Any]]) -> list[int]:
    """A group for each record, by the index of its first one: equal instructions, equal contexts and near-duplicates
    are one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs, first = near_duplicates([record["prompt"] for record in records]), dict[tuple[str, str], int]()
    for index, record in enumerate(records):
        for kind in ("instruction", "context"):
            if text := normalise(record[kind]):
                pairs.append((first.setdefault((kind, text), index), index))
    edges = (np.ones(len(pairs)), np.array(pairs, dtype=int).reshape(-1, 2).T)
    labels = connected_components(coo_array(edges, shape=(len(records), len(records))), directed=False)[1]
    return list(np.unique(labels, return_index=True)[1][labels].tolist())


class SimilarTexts:
    """Texts whose word 3-grams have a Jaccard similarity of at least 0.8, by number: MinHash LSH (Broder 1997) for
    candidates, then the exact similarity, so that chance collisions join nothing."""

    def __init__(self, texts: Iterable[str]):
        from datasketch import MinHash, MinHashLSH

        self.sets = [shingles(text) for text in texts]
        self.index = MinHashLSH(threshold=SIMILAR, num_perm=64, weights=(0.2, 0.8))  # misses cost more than candidates
        self.sketches = MinHash.bulk([[word.encode() for word in sorted(words)] for words in self.sets], num_perm=64)

    def add(self, number: int) -> None:
        self.index.insert(number, self.sketches[number])

    def added(self, number: int) -> list[int]:
        """Those like text `number` that were added."""
        words, candidates = self.sets[number], self.index.query(self.sketches[number])
        return [at for at in candidates if len(words & self.sets[at]) >= SIMILAR * len(words | self.sets[at])]


def near_duplicates(texts: list[str]) -> list[tuple[int, int]]:
    """Pairs of `SimilarTexts`."""
    similar, pairs = SimilarTexts(texts), list[tuple[int, int]]()
    for number in range(len(texts)):
        pairs += [(other, number) for other in similar.added(number)]
        similar.add(number)
    return pairs


def nearly_in(texts: Iterable[str], others: Iterable[str]) -> set[str]:
    """Those of `texts` that are near-duplicates of one of `others`: exact, through the 3-grams that both have."""
    sets, having = [shingles(text) for text in dict.fromkeys(others)], defaultdict[str, list[int]](list)
    for number, words in enumerate(sets):
        for word in words:
            having[word].append(number)
    result = set()
    for text in dict.fromkeys(texts) if having else ():
        words = shingles(text)
        enough = sum(word in having for word in words) >= SIMILAR * len(words)  # of its 3-grams are in any of them
        shared = Counter(at for word in (words if enough else ()) for at in having.get(word, ()))
        if any(both >= SIMILAR * (len(words) + len(sets[at]) - both) for at, both in shared.items()):
            result.add(text)
    return result


def split(records: list[dict[str, Any]], members: list[int], sizes: dict[str, int], seed: int) -> list[str]:
    """`test`, `target` or `train` for each record: whole groups, strata in proportion, at most `sizes`.

    A group that does not fit into the remaining quota of its strata is skipped, so a split of large groups can be
    smaller than its size. Skipped groups and the rest are train.
    """
    strata = Counter(record["category"] for record in records)
    names = sorted(strata)
    groups_of: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(members):
        groups_of[group].append(index)
    order = sorted(groups_of, key=lambda group: rank(seed, "split", min(records[i]["id"] for i in groups_of[group])))
    result = ["train"] * len(records)
    for name, size in sizes.items():
        quota = dict(zip(names, largest_remainder(size, [strata[stratum] for stratum in names]), strict=True))
        for group in order:
            inside = groups_of[group]
            need = Counter(records[index]["category"] for index in inside)
            if result[inside[0]] == "train" and all(quota[stratum] >= count for stratum, count in need.items()):
                for index in inside:
                    result[index] = name
                for stratum, count in need.items():
                    quota[stratum] -= count
    return result


def ordered(records: list[dict[str, Any]], indices: list[int], seed: int) -> list[int]:
    """`indices` in a fixed order: shuffled within each stratum, interleaved so that every prefix is stratified."""
    strata: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        strata[records[index]["category"]].append(index)
    places = []
    for stratum, inside in strata.items():
        inside.sort(key=lambda index: rank(seed, "order", records[index]["id"]))
        offset = rank(seed, "offset", stratum) / 2**64
        places += [((place + offset) / len(inside), stratum, index) for place, index in enumerate(inside)]
    return [index for _, _, index in sorted(places)]
