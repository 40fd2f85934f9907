"""Measures that read a set of texts as one long text: MTLD and compression ratios. They depend on the order of texts.

So they are averaged over seeded orders of the prompts; answers to one prompt stay together, as they came. Functions
that end in `_of` take the texts of a budget and return the value and its replicates (g,) on `deletions(prompts, seed)`,
so that the difference of two arms on the same prompts has an interval too. `prompt` (T,) are prompt numbers from 0,
below `prompts` (by default their largest + 1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from synthdiv.core.types import Score
from synthdiv.measures.intervals import NO_INTERVAL, deletions, evened, jackknife_interval, linearised, prompt_numbers
from synthdiv.measures.words import words

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np

    Prompts = Sequence[Hashable] | None
    Drawn = tuple[float, np.ndarray]  # the value, and its replicates (g,)

LEAST_WORDS = 50
GROUP_FACTORS = 2  # intervals fall short with fewer factors for each group: 84 % cover with 0.7, 91 % and more with 2
MANY_WINDOWS = 16 * 32768  # bytes: what gzip loses where a group begins is then below a percent
LEAST_BYTES = 1000  # below it, headers and the first time each letter is seen weigh more than redundancy
CODECS = ("gzip", "zstd")
GZIP_LEVEL, ZSTD_LEVEL = 6, 3  # the defaults of both
WINDOW_LOG = 27  # 128 MiB
MTLD_UNDEFINED = f"below {LEAST_WORDS} words, or no word stands twice"
COMPRESSION_UNDEFINED = f"below {LEAST_BYTES} bytes"


def mtld(
    texts: Sequence[str], prompts: Prompts = None, seed: int = 0, orders: int = 3, threshold: float = 0.72
) -> Score:
    """Measure of textual lexical diversity: words read until only `threshold` of them are distinct, on average.

    McCarthy and Jarvis 2010, MTLD, vocd-D, and HD-D: forwards and backwards, with the partial factor at the end; higher
    is more diverse. Equal to lexicalrichness, which reads one text in one order and tells no factors per prompt. NaN
    below 50 words, and where no word stands twice (there the library returns the number of words). `prompts` (T,) names
    the prompt of each text.
    """
    prompt = prompt_numbers(prompts, len(texts))
    value, drawn = mtld_of([words(text) for text in texts], prompt, None, seed, orders, threshold)
    no_interval = f"no interval: fewer than two prompts, or fewer than {GROUP_FACTORS} factors for each group of them"
    return _score("mtld", value, drawn, prompt, "words", True, MTLD_UNDEFINED, no_interval, seed)


def mtld_of(
    tokens: Sequence[Sequence[str]],
    prompt: np.ndarray,
    prompts: int | None = None,
    seed: int = 0,
    orders: int = 3,
    threshold: float = 0.72,
) -> Drawn:
    """`mtld` of texts given as words, with linear replicates. ValueError where `threshold` or `orders` is out of range.

    The groups of `deletions` stay together while groups, and prompts in them, change order. A factor counts in each
    group by the share of its words there, so a reading's MTLD = words / factors is a ratio of sums over groups, with
    pseudo-values u_i of mean MTLD, averaged over readings; without group i it is MTLD - (u_i - MTLD) / (g - 1). Single
    prompts in the place of groups would not do: a factor spans many short answers, so theirs are not independent.
    """
    import numpy as np

    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold}: it is a share of distinct words, between 0 and 1")
    prompts = int(prompt.max(initial=-1)) + 1 if prompts is None else prompts
    left_out = deletions(prompts, seed)
    undefined = np.full(len(left_out), math.nan)
    known: dict[str, int] = {}
    codes = np.array([known.setdefault(word, len(known)) for text in tokens for word in text], dtype=np.int64)
    if len(codes) < LEAST_WORDS or len(known) == len(codes):
        return math.nan, undefined
    lengths = np.array([len(text) for text in tokens], dtype=np.int64)
    first = np.cumsum(lengths) - lengths
    group = left_out.argmin(axis=0) if len(left_out) else np.zeros(prompts, dtype=np.int64)
    pseudo, factors = [], []
    for order in _orders(prompt, group, seed, orders):
        size, owner = lengths[order], group[prompt[order]]
        start = np.cumsum(size) - size
        forward = codes[np.repeat(first[order] - start, size) + np.arange(len(codes))]
        for reading, edge in ((forward, start), (forward[::-1], len(codes) - start)):
            read = _factors(reading.tolist(), len(known), threshold, np.append(edge, len(codes) - edge[0]))
            share = np.bincount(owner, abs(np.diff(read)), len(undefined) or 1)
            pseudo.append(linearised(np.bincount(owner, size, len(share)), share))
            factors.append(share.sum())
    values = np.mean(pseudo, axis=0)
    value = float(values.mean())
    if np.mean(factors) < GROUP_FACTORS * len(undefined):
        return value, undefined
    return value, (value - (values - value) / max(len(values) - 1, 1))[: len(undefined)]


def _factors(codes: list[int], vocabulary: int, threshold: float, places: np.ndarray) -> np.ndarray:
    """Factors read before each of `places` (p,) in `codes` (N integers below `vocabulary`), within a factor by words.

    A factor ends at the word that brings distinct / all words to `threshold` or below; the last one, unfinished, counts
    (1 - distinct / all) / (1 - threshold).
    """
    import numpy as np

    last_seen = [0] * vocabulary  # the factor that a word was last seen in: nothing to clear when one ends
    factor, start, distinct = 1, 0, 0
    ends = [0]
    for position, code in enumerate(codes, start=1):
        if last_seen[code] != factor:  # a new word never lowers the share, so it never ends a factor
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
    return np.interp(places, ends, counts)


def compression_ratio(
    texts: Sequence[str], prompts: Prompts = None, codec: str = "gzip", seed: int = 0, orders: int = 3
) -> Score:
    """UTF-8 bytes of `texts`, a line each, / bytes when compressed: higher is more redundant.

    Shaib et al. 2024, Standardizing the measurement of text diversity. `gzip` sees repeats within 32 KiB, `zstd` within
    128 MiB. NaN below 1000 bytes. Rises with the number of texts: compare on equal budgets only. `prompts` (T,)
    names the prompt of each text.
    """
    prompt = prompt_numbers(prompts, len(texts))
    value, drawn = compression_of(texts, prompt, None, codec, seed, orders)
    return _score(
        f"compression_{codec}", value, drawn, prompt, "ratio", False, COMPRESSION_UNDEFINED, NO_INTERVAL, seed
    )


def compression_of(
    texts: Sequence[str],
    prompt: np.ndarray,
    prompts: int | None = None,
    codec: str = "gzip",
    seed: int = 0,
    orders: int = 3,
) -> Drawn:
    """`compression_ratio`: its mean over `orders`, and each replicate; of much text in the first of these orders alone.

    Where each group of prompts fills many windows of gzip, what it adds to the whole hardly depends on the others: each
    is then compressed once by itself, and a replicate is the whole less its part.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    prompts = int(prompt.max(initial=-1)) + 1 if prompts is None else prompts
    arranged = _orders(prompt, np.zeros(prompts, dtype=np.int64), seed, orders)
    masks = deletions(prompts, seed)
    size = np.array([len(text.encode("utf-8", "surrogatepass")) + 1 for text in texts], dtype=float)
    left = np.array([size[~mask[prompt]].sum() for mask in masks])
    alone = codec == "gzip" and len(left) > 0 and bool(left.min() >= MANY_WINDOWS)
    kept = [mask != alone for mask in masks]  # those that stay; where groups are compressed alone, those left out
    used = arranged if size.sum() < MANY_WINDOWS else arranged[:1]  # in few bytes the order is noise that shows
    chosen = [*arranged, *(order[mask[prompt[order]]] for order in used for mask in kept)]
    with ThreadPoolExecutor(2) as pool:  # both codecs release the interpreter
        ratios = list(pool.map(lambda order: compressed([texts[text] for text in order], codec), chosen))
    value, drawn = float(np.mean(ratios[:orders])), np.mean(np.reshape(ratios[orders:], (len(used), -1)), axis=0)
    if alone:
        share = left / drawn / (left / drawn).sum()  # of the compressed bytes
        drawn = value * (1 - left / left.sum()) / (1 - share)
    return value, drawn


def compressed(texts: Sequence[str], codec: str) -> float:
    """Bytes of `texts` in the order given, a line each, / their bytes when compressed by `codec`; NaN below 1000 bytes.

    The same on every machine with the same zlib and zstd. ValueError for an unknown codec.
    """
    if codec not in CODECS:
        raise ValueError(f"codec {codec!r} is unknown: choose from {', '.join(CODECS)}")
    data = "\n".join(texts).encode("utf-8", "surrogatepass")
    if len(data) - len(texts) + 1 < LEAST_BYTES:  # line ends alone are no text
        return math.nan
    return len(data) / len(_gzip(data) if codec == "gzip" else _zstd(data))


def _gzip(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data, GZIP_LEVEL, mtime=0)


def _zstd(data: bytes) -> bytes:
    import zstandard

    # one thread, so that where the work is cut never shows in the size
    settings = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL, window_log=WINDOW_LOG, enable_ldm=True, threads=0
    )
    return zstandard.ZstdCompressor(compression_params=settings).compress(data)


def _orders(prompt: np.ndarray, group: np.ndarray, seed: int, orders: int) -> list[np.ndarray]:
    """Orders (T,) of the texts: groups of prompts at random, prompts at random in them, their texts as they came."""
    import numpy as np

    if orders < 1:
        raise ValueError(f"{orders} orders: there must be at least one")
    random = np.random.default_rng([seed, 1])  # not the stream that deals the groups
    groups = int(group.max(initial=0)) + 1
    return [
        np.lexsort((random.permutation(len(group))[prompt], random.permutation(groups)[group[prompt]]))
        for _ in range(orders)
    ]


def _score(
    name: str,
    value: float,
    drawn: np.ndarray,
    prompt: np.ndarray,
    unit: str,
    higher_is_better: bool,
    undefined: str,
    no_interval: str,
    seed: int,
) -> Score:
    units = int(prompt.max(initial=-1)) + 1
    low, high = map(float, jackknife_interval(value, evened(value, drawn, deletions(units, seed))))
    note = undefined if math.isnan(value) else no_interval if math.isnan(low) else ""
    return Score(name, value, units, low, high, unit, higher_is_better, note)
