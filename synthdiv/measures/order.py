"""Measures that read a set of texts as one long text, and depend on their order: MTLD and compression ratios.

They are averaged over seeded orders of the prompts; answers to one prompt stay together, in their given order.
Functions whose names end in `_of` return the value and its replicates (g,) on `jackknife_masks(prompts, seed)`, so that
the difference of two arms on the same prompts has an interval too. `prompt` (T,) holds the index of each text's prompt,
below `prompts` (default: the largest index + 1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from synthdiv.core.types import Score
from synthdiv.measures.intervals import (
    NO_INTERVAL,
    balanced,
    jackknife_interval,
    jackknife_masks,
    prompt_numbers,
    pseudo_values,
)
from synthdiv.measures.words import words

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np

    Ids = Sequence[Hashable] | None
    Replicated = tuple[float, np.ndarray]  # the value, and its replicates (g,)

MIN_WORDS = 50
MIN_FACTORS = 2  # factors per group; with 0.7, 84 % of the 95 % intervals cover the truth, with 2 at least 91 %
MANY_WINDOWS_BYTES = 16 * 32768  # above it, gzip loses less than 1 % at the start of a group
MIN_BYTES = 1000  # below it, headers and new letters outweigh redundancy
CODECS = ("gzip", "zstd")
GZIP_LEVEL, ZSTD_LEVEL = 6, 3  # the defaults of both
WINDOW_LOG = 27  # 128 MiB
MTLD_UNDEFINED = f"below {MIN_WORDS} words, or no word occurs twice"
COMPRESSION_UNDEFINED = f"below {MIN_BYTES} bytes"


def mtld(texts: Sequence[str], prompts: Ids = None, seed: int = 0, orders: int = 3, threshold: float = 0.72) -> Score:
    """Return the measure of textual lexical diversity: mean words until only `threshold` of them are distinct.

    McCarthy and Jarvis 2010, MTLD, vocd-D, and HD-D: forwards and backwards, with the partial factor at the end; higher
    is more diverse. Equal to the package lexicalrichness on one text in one order. NaN below 50 words, or if no word
    occurs twice (where the package returns the number of words). `prompts` (T,) holds the prompt id of each text.
    """
    prompt = prompt_numbers(prompts, len(texts))
    value, replicates = mtld_of([words(text) for text in texts], prompt, None, seed, orders, threshold)
    no_interval = f"no interval: fewer than two prompts, or fewer than {MIN_FACTORS} factors for each group of them"
    return _score("mtld", value, replicates, prompt, "words", True, MTLD_UNDEFINED, no_interval, seed)


def mtld_of(
    tokens: Sequence[Sequence[str]],
    prompt: np.ndarray,
    prompts: int | None = None,
    seed: int = 0,
    orders: int = 3,
    threshold: float = 0.72,
) -> Replicated:
    """Return `mtld` of texts given as words, with linear replicates.

    Groups of `jackknife_masks` stay together while groups, and prompts within them, change order. A factor counts in
    each group by the share of its words in that group. The MTLD of a reading, words / factors, is then a ratio of sums
    over groups with pseudo-values u_i; averaged over readings, the replicate without group i is
    MTLD - (u_i - MTLD) / (g - 1). Single prompts cannot replace groups: a factor spans many short answers, so prompts
    are not independent. Raises ValueError if `threshold` or `orders` is out of range.
    """
    import numpy as np

    if not 0 < threshold < 1:
        raise ValueError(f"threshold={threshold}: needs a share of distinct words between 0 and 1")
    prompts = int(prompt.max(initial=-1)) + 1 if prompts is None else prompts
    left_out = jackknife_masks(prompts, seed)
    undefined = np.full(len(left_out), math.nan)
    vocabulary: dict[str, int] = {}
    codes = np.array([vocabulary.setdefault(word, len(vocabulary)) for text in tokens for word in text], dtype=np.int64)
    if len(codes) < MIN_WORDS or len(vocabulary) == len(codes):
        return math.nan, undefined
    lengths = np.array([len(text) for text in tokens], dtype=np.int64)
    first = np.cumsum(lengths) - lengths
    group = left_out.argmin(axis=0) if len(left_out) else np.zeros(prompts, dtype=np.int64)
    pseudo, factors = [], []
    for order in _orders(prompt, group, seed, orders):
        size, group_of_text = lengths[order], group[prompt[order]]
        start = np.cumsum(size) - size
        forward = codes[np.repeat(first[order] - start, size) + np.arange(len(codes))]
        for reading, edge in ((forward, start), (forward[::-1], len(codes) - start)):
            read = _factors(reading.tolist(), len(vocabulary), threshold, np.append(edge, len(codes) - edge[0]))
            share = np.bincount(group_of_text, abs(np.diff(read)), len(undefined) or 1)
            pseudo.append(pseudo_values(np.bincount(group_of_text, size, len(share)), share))
            factors.append(share.sum())
    values = np.mean(pseudo, axis=0)
    value = float(values.mean())
    if np.mean(factors) < MIN_FACTORS * len(undefined):
        return value, undefined
    return value, (value - (values - value) / max(len(values) - 1, 1))[: len(undefined)]


def _factors(codes: list[int], vocabulary: int, threshold: float, positions: np.ndarray) -> np.ndarray:
    """Return the factors before each of `positions` (p,) in `codes` (N integers below `vocabulary`), linear within one.

    A factor ends at the word that brings distinct / all words to `threshold` or below. The unfinished last factor
    counts (1 - distinct / all) / (1 - threshold).
    """
    import numpy as np

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
    value, replicates = compression_of(texts, prompt, None, codec, seed, orders)
    return _score(
        f"compression_{codec}", value, replicates, prompt, "ratio", False, COMPRESSION_UNDEFINED, NO_INTERVAL, seed
    )


def compression_of(
    texts: Sequence[str],
    prompt: np.ndarray,
    prompts: int | None = None,
    codec: str = "gzip",
    seed: int = 0,
    orders: int = 3,
) -> Replicated:
    """Return the mean of `compression_ratio` over `orders`, and its replicates.

    Replicates of long texts use the first order only. If each group of prompts fills many windows of gzip, its
    compressed size hardly depends on the other groups: each group is then compressed once by itself, and a replicate is
    the whole minus the group.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    prompts = int(prompt.max(initial=-1)) + 1 if prompts is None else prompts
    arranged = _orders(prompt, np.zeros(prompts, dtype=np.int64), seed, orders)
    masks = jackknife_masks(prompts, seed)
    size = np.array([len(text.encode("utf-8", "surrogatepass")) + 1 for text in texts], dtype=float)
    left_out_bytes = np.array([size[~mask[prompt]].sum() for mask in masks])
    separate = codec == "gzip" and len(left_out_bytes) > 0 and bool(left_out_bytes.min() >= MANY_WINDOWS_BYTES)
    masks_to_compress = [
        mask != separate for mask in masks
    ]  # masks of what is compressed: the rest, or the group itself
    replicate_orders = (
        arranged if size.sum() < MANY_WINDOWS_BYTES else arranged[:1]
    )  # in few bytes the noise of the order matters
    text_orders = [*arranged, *(order[mask[prompt[order]]] for order in replicate_orders for mask in masks_to_compress)]
    with ThreadPoolExecutor(2) as pool:  # both codecs release the interpreter lock
        ratios = list(pool.map(lambda order: codec_ratio([texts[text] for text in order], codec), text_orders))
    value, replicates = (
        float(np.mean(ratios[:orders])),
        np.mean(np.reshape(ratios[orders:], (len(replicate_orders), -1)), axis=0),
    )
    if separate:
        share = left_out_bytes / replicates / (left_out_bytes / replicates).sum()  # of the compressed bytes
        replicates = value * (1 - left_out_bytes / left_out_bytes.sum()) / (1 - share)
    return value, replicates


def codec_ratio(texts: Sequence[str], codec: str) -> float:
    """Return the bytes of `texts` in the given order, one per line, / their compressed bytes; NaN below 1000 bytes.
    Equal on every machine with the same zlib and zstd. Raises ValueError for an unknown codec."""
    if codec not in CODECS:
        raise ValueError(f"codec={codec}: unknown; choose one of {', '.join(CODECS)}")
    data = "\n".join(texts).encode("utf-8", "surrogatepass")
    if len(data) - len(texts) + 1 < MIN_BYTES:  # line ends do not count as text
        return math.nan
    return len(data) / len(_gzip(data) if codec == "gzip" else _zstd(data))


def _gzip(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data, GZIP_LEVEL, mtime=0)


def _zstd(data: bytes) -> bytes:
    import zstandard

    # one thread: the size must not depend on how the work is split
    settings = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL, window_log=WINDOW_LOG, enable_ldm=True, threads=0
    )
    return zstandard.ZstdCompressor(compression_params=settings).compress(data)


def _orders(prompt: np.ndarray, group: np.ndarray, seed: int, orders: int) -> list[np.ndarray]:
    """Return `orders` permutations (T,) of the texts: random groups, random prompts in them, texts in order."""
    import numpy as np

    if orders < 1:
        raise ValueError(f"orders={orders}: needs 1 or more")
    random = np.random.default_rng([seed, 1])  # a stream other than that of `jackknife_masks`
    groups = int(group.max(initial=0)) + 1
    return [
        np.lexsort((random.permutation(len(group))[prompt], random.permutation(groups)[group[prompt]]))
        for _ in range(orders)
    ]


def _score(
    name: str,
    value: float,
    replicates: np.ndarray,
    prompt: np.ndarray,
    unit: str,
    higher_is_better: bool,
    undefined: str,
    no_interval: str,
    seed: int,
) -> Score:
    units = int(prompt.max(initial=-1)) + 1
    low, high = map(float, jackknife_interval(value, balanced(value, replicates, jackknife_masks(units, seed))))
    note = undefined if math.isnan(value) else no_interval if math.isnan(low) else ""
    return Score(name, value, units, low, high, unit, higher_is_better, note)
