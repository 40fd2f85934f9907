"""Self-BLEU in linear time: each text against all other texts of its group, with the values of sacrebleu.

The clipped matches of a text need the largest count of each n-gram in the other texts, so the two largest counts of an
n-gram are enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.estimates import Ids, Measure, mean_of, prompt_means, prompt_numbers, set_scores
from synthdiv.measures.ngrams import NgramCounts, NgramTable, count_ngrams, ngrams
from synthdiv.measures.words import sentences, words

MIN_SENTENCE_WORDS = 4  # the published variants skip shorter sentences
POOL_ANSWERS = 100  # answers in a pool of the published aggregated variant
ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


def self_bleu_measure(name: str, undefined: str) -> Measure:
    return Measure(name, "0-100", False, undefined, 0, 100)


NEEDS_TWO_TEXTS = "needs two texts with a word"
NEEDS_TWO_SENTENCES = "needs two sentences of four words in an answer"
NEEDS_FULL_POOL = "needs 100 answers, with sentences of four words in each hundred"


def self_bleu(texts: Sequence[str], n: int = 3, prompts: Ids = None, seed: int = 0) -> Score:
    """Return the mean BLEU of each text against all the others, 0 to 100; lower is more diverse (Zhu et al. 2018).

    Each BLEU is sacrebleu's `BLEU(max_ngram_order=n, effective_order=True).sentence_score`: tokenizer 13a, exp
    smoothing, closest reference length. An empty text scores 0, as in sacrebleu. NaN if fewer than two texts have a
    token (sacrebleu returns 0 although it compares nothing). `self_bleu_3` of a budget is the same on lower-cased words
    without punctuation, which gives other values. The value rises with the number of texts: compare on equal budgets
    only. `prompts` (T,) holds the prompt id of each text; the interval leaves out groups of prompts.
    """
    table = ngrams(tokens_13a(texts), n)
    measures = [self_bleu_measure(f"self_bleu_{n}", NEEDS_TWO_TEXTS)]
    return set_scores(measures, lambda keep: [self_bleu_of(table, table.lengths, keep, n)], prompts, len(texts), seed)[
        0
    ]


def self_bleu_individual(texts: Sequence[str], n: int = 3, prompts: Ids = None) -> Score:
    """Return the Self-BLEU among the sentences of each answer, mean over answers, 0 to 100 (S1, individual).

    Only sentences of at least four words count. An answer with fewer than two of them is undefined and counted in the
    note. Answers to one prompt are averaged first. S1 reports 100 minus this value as "lexical diversity".
    """
    values = individual_values(*sentence_table(map(sentences, texts), n), len(texts), n)
    measure = self_bleu_measure(f"published_self_bleu_{n}_individual", NEEDS_TWO_SENTENCES)
    return mean_of(measure, prompt_means(values, prompt_numbers(prompts, len(texts)))).score()


def self_bleu_aggregated(texts: Sequence[str], n: int = 3, prompts: Ids = None, seed: int = 0) -> Score:
    """Return the Self-BLEU among the sentences of 100 pooled answers, mean over pools, 0 to 100 (S1, aggregated).

    Answers are pooled in the given order; an incomplete last pool is left out. Only sentences of at least four words
    count. NaN below 100 answers.
    """
    table, owner = sentence_table(map(sentences, texts), n)
    measures = [self_bleu_measure(f"published_self_bleu_{n}_aggregated", NEEDS_FULL_POOL)]
    return set_scores(
        measures, lambda keep: [aggregated_value(table, owner, keep[owner], len(texts), n)], prompts, len(texts), seed
    )[0]


def tokens_13a(texts: Iterable[str]) -> list[list[str]]:
    """Return the tokens of each text by sacrebleu's default tokenizer (13a). Its expressions never match across white
    space, so they are applied once to each distinct word."""
    from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

    tokenize = TokenizerRegexp()
    word_tokens: dict[str, list[str]] = {}
    tokens = []
    for text in texts:
        line = text.rstrip().replace("<skipped>", "").replace("-\n", "")
        for entity, character in ENTITIES:
            line = line.replace(entity, character)
        parts = line.split()
        for part in parts:
            if part not in word_tokens:
                word_tokens[part] = tokenize(f" {part} ").split()
        tokens.append([token for part in parts for token in word_tokens[part]])
    return tokens


def sentence_table(answers: Iterable[Sequence[str]], n: int) -> tuple[NgramTable, np.ndarray]:
    """Return the n-grams of the S sentences that have at least four words, and the answer index (S,) of each."""
    pairs = [
        (owner, sentence)
        for owner, answer in enumerate(answers)
        for sentence in answer
        if len(words(sentence)) >= MIN_SENTENCE_WORDS
    ]
    table = ngrams(tokens_13a(sentence for _, sentence in pairs), n)
    return table, np.array([owner for owner, _ in pairs], dtype=np.int64)


def individual_values(table: NgramTable, owner: np.ndarray, answers: int, n: int) -> np.ndarray:
    """Return the Self-BLEU within each answer: (answers,), NaN below two sentences."""
    return prompt_means(bleu_scores(table, table.lengths, np.ones(len(owner), dtype=bool), n, owner), owner, answers)


def aggregated_value(table: NgramTable, owner: np.ndarray, present: np.ndarray, answers: int, n: int) -> float:
    """Return the mean Self-BLEU of the full pools, of the sentences in `present` (S,); NaN without a full pool."""
    pools = answers // POOL_ANSWERS
    pool = owner // POOL_ANSWERS
    values = prompt_means(bleu_scores(table, table.lengths, present, n, pool), pool, pools + 1)[:pools]
    return float(values.mean()) if pools else math.nan


def self_bleu_of(table: NgramTable, lengths: np.ndarray, present: np.ndarray, n: int = 3) -> float:
    """Return the Self-BLEU of the texts in `present` (T,), each cut to its first `lengths` (T,) words."""
    values = bleu_scores(table, lengths, present, n)[present]
    return float(values.mean()) if len(values) else math.nan


def bleu_scores(
    table: NgramTable, lengths: np.ndarray, present: np.ndarray, n: int, group: np.ndarray | None = None
) -> np.ndarray:
    """Return the BLEU of each text against the other present texts of its group: (T,). `group` (T,) is ascending; None
    means one group. NaN for absent texts, and in a group with fewer than two nonempty texts."""
    counts = [count_ngrams(table, lengths * present, order) for order in range(1, n + 1)]
    return bleu_scores_of(counts, lengths, present, group)


def bleu_scores_of(
    counts: Sequence[NgramCounts], lengths: np.ndarray, present: np.ndarray, group: np.ndarray | None = None
) -> np.ndarray:
    """Return `bleu_scores` from the counts of the 1- to n-grams of the present texts."""
    group = np.zeros(len(lengths), dtype=np.int64) if group is None else group
    matched = np.array([_matched(order_counts, group) for order_counts in counts])
    total = np.maximum(lengths - np.arange(len(counts))[:, None], 0)
    present_texts = np.flatnonzero(present)
    nonempty = np.bincount(group[present_texts], weights=lengths[present_texts] > 0)
    usable = present_texts[nonempty[group[present_texts]] > 1]
    scores = np.full(len(lengths), math.nan)
    if len(usable):
        reference = _closest_reference_length(lengths[usable], group[usable])
        scores[usable] = _bleu(matched[:, usable], total[:, usable], lengths[usable], reference)
    return scores


def _matched(counts: NgramCounts, group: np.ndarray) -> np.ndarray:
    """Return the n-gram matches of each text, clipped by the largest count in any other text of its group: (T,).

    Only the single text with the most occurrences of an n-gram is clipped, to the second largest count; all others are
    at or below the largest.
    """
    texts = len(group)
    if not len(counts.count):
        return np.zeros(texts)
    starts = np.zeros(len(counts.count), dtype=bool)
    starts[counts.first] = True
    first = np.flatnonzero(starts | (np.diff(group[counts.text], prepend=-1) != 0))
    size = np.diff(first, append=len(counts.count))
    at_top = counts.count == np.repeat(np.maximum.reduceat(counts.count, first), size)
    second = np.maximum.reduceat(np.where(at_top, 0, counts.count), first)
    unique_top = np.add.reduceat(at_top.astype(np.int64), first) == 1
    clipped = np.where(at_top & np.repeat(unique_top, size), np.repeat(second, size), counts.count)
    return np.bincount(counts.text, weights=clipped, minlength=texts)


def _closest_reference_length(lengths: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return for each text the closest length (m,) among the other texts of its group; of two, the shorter. Every group
    has two texts or more."""
    offset = (
        4 * int(lengths.max()) + 4
    )  # larger than any difference of lengths, so that the closest length is of the same group
    unique, index, count = np.unique(group * offset + lengths, return_inverse=True, return_counts=True)
    padded = np.concatenate([[unique[0] - offset], unique, [unique[-1] + offset]])
    below, above = padded[:-2], padded[2:]
    neighbour = np.where(unique - below <= above - unique, below, above)
    return np.where(count > 1, unique, neighbour)[index] - group * offset


def _bleu(matched: np.ndarray, total: np.ndarray, length: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return sentence BLEU (m,) from matches and totals (n, m) and lengths (m,): effective order, exp smoothing.

    The k-th order without a match counts as 1 / 2^k matches (Chen and Cherry 2014, method 3). A text without any match
    scores 0. Orders longer than the text do not enter the mean.
    """
    present = total > 0
    halvings = np.cumsum(present & (matched == 0), axis=0)
    smoothed = np.where(matched > 0, matched, 0.5**halvings)
    log_precision = np.where(present, np.log(100.0 * smoothed / np.maximum(total, 1)), 0.0)
    mean = log_precision.sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    brevity = np.exp(np.minimum(0.0, 1.0 - reference / np.maximum(length, 1)))
    return np.where(matched.any(axis=0), brevity * np.exp(mean), 0.0)
