"""Measures that read a set of texts as one long text, and depend on their order: MTLD and compression ratios.

They are averaged over seeded orders of the prompts; answers to one prompt stay together, in their given order.
Functions whose names end in `_of` take texts, the index (T,) of the prompt of each, and the jackknife group (prompts,)
of each prompt, and return the value and its pseudo-values (g,) as `jackknife` does.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.estimates import Estimate, Ids, Measure, jackknife, prompt_groups, prompt_numbers
from synthdiv.measures.intervals import pseudo_values
from synthdiv.measures.words import words

Replicated = tuple[float, "np.ndarray"]
MIN_WORDS = 50
MIN_FACTORS = 2  # factors per group; with 0.7, 84 % of the 95 % intervals cover the truth, with 2 at least 91 %
FEW_FACTORS = f"no interval: fewer than {MIN_FACTORS} factors for each group of prompts, or one prompt"
MANY_BYTES = 16 * 32768  # above it, the order of texts hardly matters, so replicates are of one order
MIN_BYTES = 1000  # below it, headers and new letters outweigh redundancy
CODECS = ("gzip", "zstd")
GZIP_LEVEL, ZSTD_LEVEL = 6, 3  # the defaults of both
WINDOW_LOG = 27  # 128 MiB
MTLD = Measure(
    "mtld",
    "words",
    True,
    f"below {MIN_WORDS} words, or no word occurs twice",
    0,
    caution="it does not see copied answers",
)


def compression_measure(codec: str) -> Measure:
    return Measure(f"compression_{codec}", "ratio", False, f"below {MIN_BYTES} bytes", 0)


def mtld(texts: Sequence[str], prompts: Ids = None, seed: int = 0, orders: int = 3, threshold: float = 0.72) -> Score:
    """Return the measure of textual lexical diversity: mean words until only `threshold` of them are distinct.

    McCarthy and Jarvis 2010, MTLD, vocd-D, and HD-D: forwards and backwards, with the partial factor at the end; higher
    is more diverse. Equal to the package lexicalrichness on one text in one order. NaN below 50 words, or if no word
    occurs twice (where the package returns the number of words). A copy of a whole answer hardly changes it. `prompts`
    (T,) holds the prompt id of each text; no interval with fewer than two factors for each group of prompts.
    """
    prompt = prompt_numbers(prompts, len(texts))
    group = prompt_groups(int(prompt.max(initial=-1)) + 1, seed)
    value, pseudo = mtld_of([words(text) for text in texts], prompt, group, seed, orders, threshold)
    return Estimate(MTLD, value, pseudo, len(group), no_interval=FEW_FACTORS).score()


def mtld_of(
    tokens: Sequence[Sequence[str]],
    prompt: np.ndarray,
    group: np.ndarray,
    seed: int = 0,
    orders: int = 3,
    threshold: float = 0.72,
) -> Replicated:
    """Return `mtld` of texts given as words.

    Groups stay together while groups, and prompts within them, change order. A factor counts in each group by the share
    of its words in that group, so the MTLD of a reading, words / factors, is a ratio of sums over groups, with
    pseudo-values. Single prompts cannot replace groups: a factor spans many short answers, so they are not independent.
    Raises ValueError if `threshold` or `orders` is out of range.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold={threshold}: needs a share of distinct words between 0 and 1")
    vocabulary: dict[str, int] = {}
    codes = np.array([vocabulary.setdefault(word, len(vocabulary)) for text in tokens for word in text], dtype=np.int64)
    if len(codes) < MIN_WORDS or len(vocabulary) == len(codes):
        return math.nan, np.empty(0)
    lengths = np.array([len(text) for text in tokens], dtype=np.int64)
    first = np.cumsum(lengths) - lengths
    groups = int(group.max()) + 1
    pseudo, factors = [], []
    for order in _orders(prompt, group, seed, orders):
        size, group_of_text = lengths[order], group[prompt[order]]
        start = np.cumsum(size) - size
        forward = codes[np.repeat(first[order] - start, size) + np.arange(len(codes))]
        for reading, edge in ((forward, start), (forward[::-1], len(codes) - start)):
            read = _factors(reading.tolist(), len(vocabulary), threshold, np.append(edge, len(codes) - edge[0]))
            share = np.bincount(group_of_text, abs(np.diff(read)), groups)
            pseudo.append(pseudo_values(np.bincount(group_of_text, size, groups), share))
            factors.append(share.sum())
    values = np.mean(pseudo, axis=0)
    return float(values.mean()), values if np.mean(factors) >= MIN_FACTORS * groups else values[:0]


def _factors(codes: list[int], vocabulary: int, threshold: float, positions: np.ndarray) -> np.ndarray:
    """Return the factors before each of `positions` (p,) in `codes` (N integers below `vocabulary`), linear within one.

    A factor ends at the word that brings distinct / all words to `threshold` or below. The unfinished last factor
    counts (1 - distinct / all) / (1 - threshold).
    """
    last_seen = [0] * vocabulary  # the factor in which each word was last seen
    factor, start, distinct = 1, 0, 0
    ends = [0]
    for position, code in enumerate(codes, start=1):
        if last_seen[code] != factor:  # a new word raises the share, so it cannot end a factor
            last_seen[code] = factor
            distinct += 1
        elif distinct / (position - start) <= threshold:
            ends.append(position)
            start = position
            factor += 1
            distinct = 0
    counts = np.arange(len(ends), dtype=float)
    if start < len(codes):
        ends.append(len(codes))
        counts = np.append(counts, counts[-1] + (1 - distinct / (len(codes) - start)) / (1 - threshold))
    return np.interp(positions, ends, counts)


def compression_ratio(
    texts: Sequence[str], prompts: Ids = None, codec: str = "gzip", seed: int = 0, orders: int = 3
) -> Score:
    """Return the UTF-8 bytes of `texts`, one per line, / their compressed bytes: higher is more redundant.

    Shaib et al. 2024, Standardizing the measurement of text diversity. `gzip` finds repeats within 32 KiB, `zstd`
    within 128 MiB. NaN below 1000 bytes. The value rises with the number of texts: compare on equal budgets only.
    `prompts` (T,) holds the prompt id of each text.
    """
    prompt = prompt_numbers(prompts, len(texts))
    group = prompt_groups(int(prompt.max(initial=-1)) + 1, seed)
    value, pseudo = compression_of(texts, prompt, group, codec, seed, orders)
    return Estimate(compression_measure(codec), value, pseudo, len(group)).score()


def compression_of(
    texts: Sequence[str], prompt: np.ndarray, group: np.ndarray, codec: str = "gzip", seed: int = 0, orders: int = 3
) -> Replicated:
    """Return the mean of the compression ratio over `orders`. Replicates of long texts are of the first order only."""
    arranged = _orders(prompt, np.zeros_like(group), seed, orders)
    of_text = group[prompt]
    size = np.array([len(text.encode("utf-8", "surrogatepass")) + 1 for text in texts], dtype=float)
    replicated = arranged if size.sum() < MANY_BYTES else arranged[:1]

    def statistic(keep: np.ndarray) -> list[float]:
        return [codec_ratio([texts[text] for text in order if keep[of_text[text]]], codec) for order in replicated]

    values, pseudo = jackknife(statistic, np.bincount(of_text, size))
    rest = [codec_ratio([texts[text] for text in order], codec) for order in arranged[len(replicated) :]]
    value = float(np.mean([*values, *rest]))
    return value, pseudo.mean(axis=1) - values.mean() + value


def codec_ratio(texts: Sequence[str], codec: str) -> float:
    """Return the bytes of `texts` in the given order, one per line, / their compressed bytes; NaN below 1000 bytes.
    Equal on every machine with the same zlib and zstd. Raises ValueError for an unknown codec."""
    if codec not in CODECS:
        raise ValueError(f"codec={codec}: unknown; choose one of {', '.join(CODECS)}")
    data = "\n".join(texts).encode("utf-8", "surrogatepass")
    if len(data) - len(texts) + 1 < MIN_BYTES:  # line ends do not count as text
        return math.nan
    return len(data) / len(gzip.compress(data, GZIP_LEVEL, mtime=0) if codec == "gzip" else _zstd(data))


def _zstd(data: bytes) -> bytes:
    import zstandard

    # one thread: the size must not depend on how the work is split
    settings = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL, window_log=WINDOW_LOG, enable_ldm=True, threads=0
    )
    return zstandard.ZstdCompressor(compression_params=settings).compress(data)


def _orders(prompt: np.ndarray, group: np.ndarray, seed: int, orders: int) -> list[np.ndarray]:
    """Return `orders` permutations (T,) of the texts: random groups, random prompts in them, texts in order."""
    if orders < 1:
        raise ValueError(f"orders={orders}: needs 1 or more")
    random = np.random.default_rng([seed, 1])  # a stream other than that of `prompt_groups`
    groups = int(group.max(initial=0)) + 1
    return [
        np.lexsort((random.permutation(len(group))[prompt], random.permutation(groups)[group[prompt]]))
        for _ in range(orders)
    ]
