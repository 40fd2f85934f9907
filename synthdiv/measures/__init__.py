"""Pure functions on texts, vectors and log-likelihoods. No I/O and no configuration; numpy and scipy load when called.

`words` and `heaps` come from the modules of those names, which they would hide here.
"""

from synthdiv.measures.collapse import lexical_scores
from synthdiv.measures.heaps import Heaps, heaps_in_order
from synthdiv.measures.intervals import mean_interval, set_interval
from synthdiv.measures.lexical import distinct_n, self_bleu
from synthdiv.measures.likelihood import AnswerNLL, likelihood_scores
from synthdiv.measures.words import REGEX, cut_to_words

__all__ = [
    "REGEX",
    "AnswerNLL",
    "Heaps",
    "cut_to_words",
    "distinct_n",
    "heaps_in_order",
    "lexical_scores",
    "likelihood_scores",
    "mean_interval",
    "self_bleu",
    "set_interval",
]
