"""Measures of diversity and likelihood: pure functions of texts, vectors and log-likelihoods that return a `Score`.

They do no I/O and take no configuration. numpy, scipy and other large libraries load when a measure is called.
"""

from synthdiv.measures.answers import repetition_rate, response_length, sentence_count
from synthdiv.measures.bleu import self_bleu, self_bleu_aggregated, self_bleu_individual
from synthdiv.measures.budgets import TextBudget, lexical_scores
from synthdiv.measures.lexical import distinct_n, heaps, heaps_in_order, ngram_entropy
from synthdiv.measures.neighbours import nearest_neighbour_entropy, support_precision, support_recall
from synthdiv.measures.order import compression_ratio, mtld
from synthdiv.measures.perplexity import AnswerNLL, likelihood_scores, own_answer_scores
from synthdiv.measures.real_labels import real_labels
from synthdiv.measures.reference import cluster_entropy, frechet_distance, mauve
from synthdiv.measures.semantic import semantic_scores
from synthdiv.measures.similarity import ngram_vectors, source_similarity
from synthdiv.measures.spectrum import vendi
from synthdiv.measures.tails import own_answer_tail_scores, tail_scores
from synthdiv.measures.temperature import TemperatureCurve, temperature_scores
from synthdiv.measures.vectors import between_prompt_distance, mean_cosine_distance, within_prompt_distance

__all__ = [
    "AnswerNLL", "TemperatureCurve", "TextBudget", "between_prompt_distance", "cluster_entropy", "compression_ratio",
    "distinct_n", "frechet_distance", "heaps", "heaps_in_order", "lexical_scores", "likelihood_scores", "mauve",
    "mean_cosine_distance", "mtld", "nearest_neighbour_entropy", "ngram_entropy", "ngram_vectors",
    "own_answer_scores", "own_answer_tail_scores", "real_labels", "repetition_rate", "response_length", "self_bleu",
    "self_bleu_aggregated", "self_bleu_individual", "semantic_scores", "sentence_count", "source_similarity",
    "support_precision", "support_recall", "tail_scores", "temperature_scores", "vendi", "within_prompt_distance",
]  # fmt: skip
