"""Studies made up to see whether intervals cover.

Two arms answer the same prompts, which differ in topic, in length and in how much answers to them vary. Each study is
drawn anew, prompts and all, from one world.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from synthdiv.core.types import Score
from synthdiv.measures.budgets import TextBudget, lexical_scores
from synthdiv.measures.estimates import SHARE, Measure, mean_of, scores_of
from synthdiv.measures.perplexity import AnswerNLL, likelihood_scores, own_answer_scores
from synthdiv.measures.reference import cluster_entropy_of, fit_centres
from synthdiv.measures.semantic import semantic_scores
from synthdiv.measures.tails import own_answer_tail_scores, tail_scores
from synthdiv.measures.temperature import INDEX_OF_ONE, TEMPERATURES, TemperatureCurve, temperature_scores
from synthdiv.measures.vectors import vector_arms

SAMPLES = 3  # answers to a prompt
CATEGORIES = 8
VOCABULARY, LENGTH, SHORT = 3000, 34, 15  # words: known, of a middle answer, seen of each on the @texts budget
DIMENSIONS = 24

WORLD = np.random.default_rng(0)  # what all studies have in common
WORDS = np.array([f"w{number}" for number in range(VOCABULARY)])
SUBJECTS = np.array(
    [WORLD.permutation(VOCABULARY) for _ in range(CATEGORIES)]
)  # each category's words, often used first
PHRASES = WORLD.integers(VOCABULARY, size=(30, 4))  # with which sentences begin
CENTRES = WORLD.normal(size=(CATEGORIES, DIMENSIONS))
SPECTRUM = 1 / np.sqrt(np.arange(1, DIMENSIONS + 1))  # few directions carry most of the meaning


def lexical(seed: int, prompts: int, samples: int = SAMPLES, runaway: float = 0.0) -> list[Score]:
    """The first arm is the narrower: a steeper law of words, and more phrases. A share of answers runs away: it is ten
    times as long."""
    random = np.random.default_rng((1, prompts, seed))
    category, topic = random.integers(CATEGORIES, size=prompts), random.integers(VOCABULARY, size=(prompts, 4))
    length = LENGTH * np.exp(random.normal(0, 0.35, prompts))
    asked = list(zip(category, topic, length, strict=True))
    student, vanilla = (
        {
            f"p{i}": [
                answer(random, category, topic, length * (1 + 9 * (random.random() < runaway)), *arm)
                for _ in range(samples)
            ]
            for i, (category, topic, length) in enumerate(asked)
        }
        for arm in ((1.15, 0.5), (1.0, 0.3))
    )
    within = {"within": samples, "draws": samples} if samples > 1 else {}
    budget = TextBudget(int(0.5 * prompts * LENGTH), prompts * 3 // 4, SHORT, min(50, prompts), **within)
    return lexical_scores(student, vanilla, budget, seed)


def answer(
    random: np.random.Generator, category: int, topic: np.ndarray, length: float, slope: float, phrases: float
) -> str:
    """Words of everyone, of the category and of the prompt's topic, in sentences that may begin with a phrase."""
    count = max(int(random.poisson(length)), SHORT)  # how many prompts are long enough is then no matter of chance
    ranks = law(random, slope, count)
    kind = random.random(count)
    words = np.where(kind < 0.6, ranks, np.where(kind < 0.85, SUBJECTS[category][ranks], random.choice(topic, count)))
    sentences = []
    for part in np.array_split(words, -(-count // 10)):
        begins = random.random() < phrases
        phrase = PHRASES[law(random, 1.0, 1)[0] % len(PHRASES)]
        part[: 4 * begins] = phrase[: 4 * begins][: len(part)]
        sentences.append(" ".join(WORDS[part]).capitalize() + ".")
    return " ".join(sentences)


def law(random: np.random.Generator, slope: float, count: int) -> np.ndarray:
    """Ranks from 0 by Zipf's law, truncated."""
    share = np.arange(1, VOCABULARY + 1) ** -slope
    limits = np.cumsum(share)
    return np.searchsorted(limits, random.random(count) * limits[-1])


def semantic(seed: int, prompts: int, samples: int = SAMPLES) -> list[Score]:
    """The first arm varies less and lies off the human answers, of which there is one to each prompt."""
    random = np.random.default_rng((2, prompts, seed))
    asked = meanings(random, prompts)
    student = answered(random, *asked, samples, 0.7, 1.2)
    vanilla = answered(random, *asked, samples, 1.0, 0.5)
    human = answered(random, *asked, 1, 1.1, 0.0)
    names = list(range(prompts))
    ids = np.repeat(names, samples).tolist()
    scores = semantic_scores(student, vanilla, human, ids, ids, names, seed)
    own, base = (cluster_entropy_of(arm, given_clusters()) for arm in vector_arms(seed, (student, ids), (vanilla, ids)))
    parts = [
        replace(part, measure=part.measure._replace(name="cluster_entropy, clusters given")) for part in (own, base)
    ]
    return scores + scores_of(parts[:1], parts[1:])


def meanings(random: np.random.Generator, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """What each prompt is about (prompts, 1, d), and how much answers to it vary (prompts, 1, 1)."""
    middle = CENTRES[random.integers(CATEGORIES, size=prompts)] + random.normal(size=(prompts, DIMENSIONS))
    return middle[:, None], np.exp(random.normal(-0.3, 0.4, (prompts, 1, 1)))


def answered(
    random: np.random.Generator, middle: np.ndarray, spread: np.ndarray, samples: int, scale: float, shift: float
) -> np.ndarray:
    """Vectors of the answers to each prompt, prompt by prompt: (prompts * samples, d)."""
    noise = spread * scale * random.normal(size=(len(middle), samples, DIMENSIONS))
    return ((middle + noise + shift) * SPECTRUM).reshape(-1, DIMENSIONS)


@functools.cache
def given_clusters() -> np.ndarray:
    """Clusters of human answers that are the same in every study."""
    random = np.random.default_rng(9)
    return fit_centres(answered(random, *meanings(random, 600), 1, 1.1, 0.0))[0]


def likelihood(seed: int, prompts: int) -> list[Score]:
    """Human answers drawn from a law of 30 words a token; the first arm is sharper, and knows the law better."""
    random = np.random.default_rng((3, prompts, seed))
    tokens = 2 + random.poisson(15 * np.exp(random.normal(0, 0.4, prompts)))
    owner, total = np.repeat(np.arange(prompts), tokens), tokens.sum()
    sharpness = np.exp(random.normal(0.5, 0.3, prompts))[owner, None]
    truth = sharpness * random.normal(size=(total, 30))
    result = (truth + random.gumbel(size=truth.shape)).argmax(axis=1)  # a draw from its softmax
    arms = [
        scored(scale * (truth + noise * random.normal(size=truth.shape)), result, tokens)
        for scale, noise in ((1.5, 0.6), (1.0, 0.9))
    ]
    (answers, each, curves), (other, other_each, other_curves) = arms
    scores = likelihood_scores(answers, other) + tail_scores(each, other_each, seed)
    scores += temperature_scores(curves, other_curves, seed)
    own = [own_answers(random, prompts, tokens, mean) for mean in (0.6, 0.8)]
    scores += own_answer_tail_scores(*own, seed)
    summed = [
        {name: [AnswerNLL(sum(one), len(one), 4 * len(one)) for one in result] for name, result in arm.items()}
        for arm in own
    ]
    return scores + own_answer_scores(*summed)


Scored = tuple[dict[str, AnswerNLL], dict[str, list[float]], dict[str, TemperatureCurve]]


def scored(logits: np.ndarray, answer_words: np.ndarray, tokens: np.ndarray) -> Scored:
    """What a model with `logits` (tokens of all, 30) says of the words `said`, by prompt."""
    logit = logits[np.arange(len(answer_words)), answer_words]
    highest = logits.max(axis=1)
    nll = np.array(
        [np.log(np.exp((logits - highest[:, None]) / t).sum(axis=1)) + (highest - logit) / t for t in TEMPERATURES]
    )
    parts = np.split(nll, np.cumsum(tokens)[:-1], axis=1)
    names = [f"p{number}" for number in range(len(tokens))]
    sums = {name: part.sum(axis=1) for name, part in zip(names, parts, strict=True)}
    return (
        {
            name: AnswerNLL(float(sums[name][INDEX_OF_ONE]), part.shape[1], 4 * part.shape[1])
            for name, part in zip(names, parts, strict=True)
        },
        {name: part[INDEX_OF_ONE].tolist() for name, part in zip(names, parts, strict=True)},
        {name: TemperatureCurve(sums[name].tolist(), part.shape[1]) for name, part in zip(names, parts, strict=True)},
    )


def own_answers(
    random: np.random.Generator, prompts: int, tokens: np.ndarray, mean: float
) -> dict[str, list[list[float]]]:
    """NLL of each token of an arm's own answers: as long as their prompt asks for, some prompts easier than others."""
    easy = mean * np.exp(random.normal(0, 0.4, prompts))
    return {
        f"p{number}": [random.gamma(0.7, level / 0.7, 2 + random.poisson(length)).tolist() for _ in range(SAMPLES)]
        for number, (length, level) in enumerate(zip(tokens, easy, strict=True))
    }


def rates(seed: int, prompts: int) -> list[Score]:
    """Shares of answers near 0 and 1, of one answer to each prompt and of eight that are alike, in two arms."""
    random = np.random.default_rng((4, prompts, seed))
    scores = []
    for rate in (0.002, 0.02, 0.2, 0.98, 0.998):
        for samples in (1, 8):
            measure = Measure(
                f"share of {rate:g}, {samples} answer{'s' * (samples > 1)}", SHARE, None, "no answer", 0, 1
            )
            level = random.beta(2 * rate, 2 * (1 - rate), (prompts, 1)) if samples > 1 else rate
            arms = [(random.random((prompts, samples)) < level).mean(axis=1) for _ in range(2)]
            one, other = (mean_of(measure, means, prompts * samples) for means in arms)
            scores += [one.score(), one.minus(other).score()]
    return scores


KINDS = {
    "lexical": lexical,
    "lexical, one answer": functools.partial(lexical, samples=1),
    "lexical, runaway answers": functools.partial(lexical, samples=1, runaway=0.025),
    "semantic": semantic,
    "semantic, one answer": functools.partial(semantic, samples=1),
    "likelihood": likelihood,
    "shares": rates,
}


def study(task: tuple[str, int, int]) -> dict[str, tuple[float, float, float]]:
    """Value and interval of every measure in one study: of a kind, with so many prompts, drawn by a seed."""
    kind, prompts, seed = task
    return {score.name: (score.value, score.low, score.high) for score in KINDS[kind](seed, prompts)}
