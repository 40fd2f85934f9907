"""Self-BLEU in linear time: each text against all others of its group, exactly as sacrebleu scores it.

A text's clipped matches need only the largest count of each n-gram in the other texts, that is, the two largest counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from synthdiv.core.types import Score
from synthdiv.measures.intervals import jackknife_score, mean_score, prompt_means, prompt_numbers
from synthdiv.measures.ngrams import Counted, Ngrams, counted, ngrams
from synthdiv.measures.sentences import sentences

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    import numpy as np

LEAST_WORDS = 4  # the published variants leave shorter sentences out
POOL = 100  # answers whose sentences the published aggregated variant pools
ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
TWO_TEXTS = "needs two texts with a word"
TWO_SENTENCES = "needs two sentences of four words in an answer"
FULL_POOL = "needs 100 answers, with sentences of four words in each hundred"


def self_bleu(texts: Sequence[str], n: int = 3, prompts: Sequence[Hashable] | None = None, seed: int = 0) -> Score:
    """Mean over `texts` of the BLEU of each against all the others, 0 .. 100; lower is more diverse (Zhu et al. 2018).

    Each BLEU is sacrebleu's `BLEU(max_ngram_order=n, effective_order=True).sentence_score`: tokenizer 13a, exp
    smoothing, closest reference length. An empty text scores 0 there and here. NaN where fewer than two texts have a
    token (sacrebleu says 0, but nothing was compared). Rises with the number of texts: compare on equal
    budgets only. `prompts` names the prompt that each text answers; the interval leaves out groups of prompts.
    """

    prompt = prompt_numbers(prompts, len(texts))
    table = ngrams(tokens_13a(texts), n)

    def statistic(keep: np.ndarray) -> float:
        return self_bleu_of(table, table.lengths, keep[prompt], n)

    units = int(prompt.max(initial=-1)) + 1
    name = f"self_bleu_{n}"
    return jackknife_score(name, statistic, units, unit="0-100", higher_is_better=False, undefined=TWO_TEXTS, seed=seed)


def self_bleu_individual(texts: Sequence[str], n: int = 3, prompts: Sequence[Hashable] | None = None) -> Score:
    """S1's individual mode: the Self-BLEU of the sentences within an answer, mean over answers, 0 .. 100.

    Sentences of at least four words; an answer with fewer than two of them is undefined and counted in the note.
    Answers of one prompt are averaged first. S1 reports 100 minus it as "lexical diversity".
    """
    prompt = prompt_numbers(prompts, len(texts))
    values = individual(*sentence_table(map(sentences, texts), n), len(texts), n)
    name = f"published_self_bleu_{n}_individual"
    return mean_score(name, prompt_means(values, prompt), "0-100", False, TWO_SENTENCES)


def self_bleu_aggregated(
    texts: Sequence[str], n: int = 3, prompts: Sequence[Hashable] | None = None, seed: int = 0
) -> Score:
    """S1's aggregated mode: the Self-BLEU of the sentences of 100 answers pooled, 0 .. 100; mean over pools.

    Answers are pooled in the order given; a last incomplete pool is left out. Sentences of at least four words. NaN
    below 100 answers.
    """
    prompt = prompt_numbers(prompts, len(texts))
    table, owner = sentence_table(map(sentences, texts), n)
    name, units = f"published_self_bleu_{n}_aggregated", int(prompt.max(initial=-1)) + 1

    def statistic(keep: np.ndarray) -> float:
        return aggregated(table, owner, keep[prompt][owner], len(prompt), n)

    return jackknife_score(name, statistic, units, unit="0-100", higher_is_better=False, undefined=FULL_POOL, seed=seed)


def tokens_13a(texts: Iterable[str]) -> list[list[str]]:
    """sacrebleu's default tokens of each text.

    Its expressions never look beyond the next blank, so they are applied once to each distinct word.
    """
    from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

    tokenize = TokenizerRegexp()
    known: dict[str, list[str]] = {}
    found = []
    for text in texts:
        line = text.rstrip().replace("<skipped>", "").replace("-\n", "")
        for entity, character in ENTITIES:
            line = line.replace(entity, character)
        words = line.split()
        for word in words:
            if word not in known:
                known[word] = tokenize(f" {word} ").split()
        found.append([token for word in words for token in known[word]])
    return found


def sentence_table(answers: Iterable[Sequence[str]], n: int) -> tuple[Ngrams, np.ndarray]:
    """The n-grams of those sentences of the answers that have four words (S of them), and the answer (S,) of each."""
    import numpy as np

    found = [
        (owner, sentence)
        for owner, answer in enumerate(answers)
        for sentence in answer
        if len(sentence.split()) >= LEAST_WORDS
    ]
    table = ngrams(tokens_13a(sentence for _, sentence in found), n)
    return table, np.array([owner for owner, _ in found], dtype=np.int64)


def individual(table: Ngrams, owner: np.ndarray, answers: int, n: int) -> np.ndarray:
    """The Self-BLEU within each answer: (answers,), NaN below two sentences."""
    import numpy as np

    return prompt_means(bleu_scores(table, table.lengths, np.ones(len(owner), dtype=bool), n, owner), owner, answers)


def aggregated(table: Ngrams, owner: np.ndarray, present: np.ndarray, answers: int, n: int) -> float:
    """The mean Self-BLEU of full pools of `answers`; only the sentences `present` (S,) enter. NaN without a pool."""
    pools = answers // POOL
    pool = owner // POOL
    values = prompt_means(bleu_scores(table, table.lengths, present, n, pool), pool, pools + 1)[:pools]
    return float(values.mean()) if pools else math.nan


def self_bleu_of(table: Ngrams, kept: np.ndarray, present: np.ndarray, n: int = 3) -> float:
    """Self-BLEU of the texts in `present` (T,), each cut to its first `kept` (T,) words."""
    values = bleu_scores(table, kept, present, n)[present]
    return float(values.mean()) if len(values) else math.nan


def bleu_scores(
    table: Ngrams, kept: np.ndarray, present: np.ndarray, n: int, group: np.ndarray | None = None
) -> np.ndarray:
    """BLEU of each text against the other texts of its group that are present: (T,), NaN where there is nothing to say.

    `group` (T,) ascends; None is one group. NaN for absent texts, and in a group with fewer than two texts that have a
    word.
    """
    counts = [counted(table, kept * present, order) for order in range(1, n + 1)]
    return bleu_scores_of(counts, kept, present, group)


def bleu_scores_of(
    counts: Sequence[Counted], kept: np.ndarray, present: np.ndarray, group: np.ndarray | None = None
) -> np.ndarray:
    """`bleu_scores` from the counts of the 1- to n-grams of the texts that are present."""
    import numpy as np

    group = np.zeros(len(kept), dtype=np.int64) if group is None else group
    matched = np.array([_matched(one, group) for one in counts])
    total = np.maximum(kept - np.arange(len(counts))[:, None], 0)
    there = np.flatnonzero(present)
    spoken = np.bincount(group[there], weights=kept[there] > 0)
    usable = there[spoken[group[there]] > 1]
    scores = np.full(len(kept), math.nan)
    if len(usable):
        reference = _closest(kept[usable], group[usable])
        scores[usable] = _bleu(matched[:, usable], total[:, usable], kept[usable], reference)
    return scores


def _matched(counts: Counted, group: np.ndarray) -> np.ndarray:
    """Per text, its n-grams clipped by their largest count in any other text of its group: (T,).

    Only the single text with the most of an n-gram is clipped, namely to the second largest count; all others are
    already at or below the largest.
    """
    import numpy as np

    texts = len(group)
    if not len(counts.count):
        return np.zeros(texts)
    starts = np.zeros(len(counts.count), dtype=bool)
    starts[counts.first] = True
    first = np.flatnonzero(starts | (np.diff(group[counts.text], prepend=-1) != 0))
    size = np.diff(first, append=len(counts.count))
    at_top = counts.count == np.repeat(np.maximum.reduceat(counts.count, first), size)
    second = np.maximum.reduceat(np.where(at_top, 0, counts.count), first)
    alone = np.add.reduceat(at_top.astype(np.int64), first) == 1
    clipped = np.where(at_top & np.repeat(alone, size), np.repeat(second, size), counts.count)
    return np.bincount(counts.text, weights=clipped, minlength=texts)


def _closest(lengths: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each text the length closest to its own among the others of its group; of two equally close the shorter.

    (m,); every group has two texts or more.
    """
    import numpy as np

    apart = 4 * int(lengths.max()) + 4  # lengths of other groups lie further away than any of the own
    unique, index, count = np.unique(group * apart + lengths, return_inverse=True, return_counts=True)
    padded = np.concatenate([[unique[0] - apart], unique, [unique[-1] + apart]])
    below, above = padded[:-2], padded[2:]
    neighbour = np.where(unique - below <= above - unique, below, above)
    return np.where(count > 1, unique, neighbour)[index] - group * apart


def _bleu(matched: np.ndarray, total: np.ndarray, length: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Sentence BLEU (m,) from matches and totals (n, m) and lengths (m,): effective order, exp smoothing.

    The k-th order without a match counts as 1 / 2^k matches (Chen and Cherry 2014, method 3); a text without any match
    scores 0; orders longer than the text are left out of the mean.
    """
    import numpy as np

    present = total > 0
    halvings = np.cumsum(present & (matched == 0), axis=0)
    smoothed = np.where(matched > 0, matched, 0.5**halvings)
    log_precision = np.where(present, np.log(100.0 * smoothed / np.maximum(total, 1)), 0.0)
    mean = log_precision.sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    brevity = np.exp(np.minimum(0.0, 1.0 - reference / np.maximum(length, 1)))
    return np.where(matched.any(axis=0), brevity * np.exp(mean), 0.0)
