"""The collapse suite: did the output distribution narrow? Likelihood, lexical and semantic measures, always compared
with the vanilla student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import Artifact, DataError, Run, Sample, Score
from synthdiv.evaluate.likelihood import Likelihood, Target, human_scores, own_items, perplexity_1_scores
from synthdiv.evaluate.respond import grouped, responses
from synthdiv.evaluate.suite import EvaluatedStudent, Suite, item, with_notes, write_suite
from synthdiv.generate.generate import read_samples
from synthdiv.measures.answers import repetitions
from synthdiv.measures.budgets import TextBudget, lexical_estimates, words_scores
from synthdiv.measures.estimates import SHARE, VANILLA, Measure, join_notes, mean_of, scores_of
from synthdiv.measures.semantic import semantic_scores
from synthdiv.measures.words import REGEX, SENTENCE, sentences, words
from synthdiv.mix.sentence_vectors import Vectors, read_vectors, truncated_note
from synthdiv.models.checkpoint import Checkpoint

AGAINST_HUMAN = ("mauve", "frechet", "precision", "recall", "cluster_entropy")
PER_PROMPT = ("self_bleu_3_within@texts", "distinct_2_within@texts", "published_self_bleu_3_individual")  # items
TRUNCATED = Measure("truncated", SHARE, None, "no answer", 0, 1)


@dataclass
class CollapseSuite(Suite, TextBudget):
    """Did the output distribution narrow? Likelihood, lexical and semantic measures."""

    headlines = (
        "nll_2",
        "nll_2_support-vanilla",
        "published/self_bleu_3@words",
        "plain/self_bleu_3@texts",
        "plain/distinct_2@texts",
        "plain/distinct_2_within@texts",
        "plain/vendi_1",
        "plain/recall",
    )
    diversity = ("plain/distinct_2_within@texts", "plain/distinct_2@texts", "plain/vendi_1")
    caveats = tuple(
        f"{decoding}/{name}"
        for decoding in ("published", "plain")
        for name in ("truncated", "empty", "looping", "passed_over@texts", "words_cut@words")
    )
    paired_answers, human_likelihood = "{}/answers", "human"

    encoder: Checkpoint | None = None
    """A model of sentence-transformers; null: no semantic measures."""
    seed: int = setting(0, least=0)
    """Seed of the intervals."""

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node:
        human = bool(getattr(arm.prompts.stage, "human", False))
        stage = Collapse(
            **{each.name: getattr(self, each.name) for each in fields(TextBudget)},
            decodings=list(arm.responses),
            human=human,
            vanilla=vanilla is None,
            vectors=self.encoder is not None,
            seed=self.seed,
        )
        inputs = self.parts(arm, human)
        if vanilla:
            inputs |= {f"vanilla/{name}": node for name, node in self.parts(vanilla, human).items()}
        if self.encoder and human:
            inputs["human_vectors"] = self.vectors(prompts=arm.prompts)
        return Node(stage, inputs)

    def parts(self, arm: EvaluatedStudent, human: bool) -> dict[str, Node]:
        """What the suite takes of one arm, by name."""
        settings = arm.settings

        def likelihood(target: Target, model: Node, **answers: Node) -> Node:
            stage = Likelihood(target, 0, settings.precision, settings.batch_tokens)
            return Node(stage, {"prompts": arm.prompts, "model": model, **answers})

        nodes = dict[str, Node]()
        for decoding, answers in arm.responses.items():
            nodes[f"{decoding}/answers"] = answers
            nodes[f"{decoding}/own"] = likelihood(Target.own, arm.vanilla_model, answers=answers)
            if self.encoder:
                nodes[f"{decoding}/vectors"] = self.vectors(answers=answers)
        return nodes | ({"human": likelihood(Target.human, arm.model)} if human else {})

    def vectors(self, **texts: Node) -> Node:
        """Sentence vectors of answers, or of the human test answers of `prompts`."""
        assert self.encoder
        return Node(Vectors("prompts" in texts, self.length), {**texts, "encoder": Node(self.encoder)})


@dataclass
class Collapse(Stage, TextBudget):
    """Inputs, by decoding D: `D/answers` of the student, `D/own`, their likelihood under the vanilla student, and with
    `vectors` `D/vectors`; with `human` `human`, the likelihood of the human answers under the student. The same of the
    vanilla student, with `vanilla/` before each name, unless the student is the vanilla one. With both `vectors` and
    `human` `human_vectors`, of the human answers.

    Output: `scores.json` and `items.parquet`.
    """

    name = "collapse"
    version = 4

    decodings: list[str] = field(default_factory=list)
    """Names of the decodings."""
    human: bool = True
    """The prompts have human answers."""
    vanilla: bool = False
    """This is the vanilla student itself."""
    vectors: bool = False
    """There is a sentence encoder."""
    word: str = REGEX
    """The one regular expression for words."""
    sentence: str = SENTENCE
    """The one regular expression for sentences."""
    seed: int = 0
    """Seed of the intervals."""

    def input_names(self) -> list[str]:
        parts = ["answers", "own", *(["vectors"] if self.vectors else [])]
        arm = [f"{decoding}/{part}" for decoding in self.decodings for part in parts]
        arm += ["human"] if self.human else []
        vanilla = [] if self.vanilla else [f"vanilla/{name}" for name in arm]
        return [*arm, *vanilla, *(["human_vectors"] if self.human and self.vectors else [])]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        if (self.word, self.sentence) != (REGEX, SENTENCE):
            raise DataError("collapse.word, collapse.sentence: this version has one rule for each, " + REGEX)
        arms = [inputs[name] for name in ("human", "vanilla/human") if name in inputs]
        scores, items = human_scores(*arms, seed=self.seed) if arms else ([], [])
        for index, decoding in enumerate(self.decodings):
            run.progress(index, len(self.decodings), "decodings measured")
            more, more_items = self._decoding(inputs, decoding)
            scores += [replace(score, name=f"{decoding}/{score.name}") for score in more]
            items += [{**each, "decoding": decoding} for each in more_items]
        return write_suite(out, scores, items, CollapseSuite)

    def _decoding(self, inputs: Mapping[str, Artifact], decoding: str) -> tuple[list[Score], list[dict[str, Any]]]:
        """The scores and the items of one decoding."""

        def arms(part: str) -> list[Artifact]:
            """The artifact of the student, and unless it is the vanilla student that of this one."""
            names = (f"{decoding}/{part}", f"vanilla/{decoding}/{part}")
            return [inputs[name] for name in names if name in inputs]

        groups, *vanilla = [grouped(read_samples(each.path)) for each in arms("answers")]
        base = responses(vanilla[0]) if vanilla else None
        levels, gaps = lexical_estimates(responses(groups), base, self, self.seed)
        scores = scores_of([*levels, *gaps]) + whole_scores([groups, *vanilla], self, self.seed)
        scores += perplexity_1_scores(*arms("own"), seed=self.seed)
        truncated = [sum(row.finish == "length" for row in rows) / len(rows) for rows in groups.values()]
        scores.append(mean_of(TRUNCATED, truncated, sum(map(len, groups.values()))).score())
        if self.vectors:
            scores += semantic(*arms("vectors"), human=inputs.get("human_vectors"), seed=self.seed)
        per_prompt = [each for each in levels if each.measure.name in PER_PROMPT]
        pairs = [(each, pair) for each in per_prompt for pair in zip(groups, each.units, strict=True)]
        items = [*answer_items(groups), *(item(key, each.measure.name, x) for each, (key, x) in pairs)]
        return scores, [*items, *own_items(inputs[f"{decoding}/own"])]


def whole_scores(arms: list[dict[str, list[Sample]]], budget: TextBudget, seed: int) -> list[Score]:
    """The `@words` scores without first answers that are truncated or empty: how much these change the others."""
    whole = [{key: [row.response for row in rows[:1] if is_whole(row)] for key, rows in arm.items()} for arm in arms]
    dropped = sum(not texts for texts in whole[0].values())
    note = f"without {dropped} of {len(whole[0])} first answers, truncated or empty"
    scores = words_scores(*whole, budget=budget, seed=seed)
    return [replace(score, name=f"whole/{score.name}", note=join_notes(score.note, note)) for score in scores]


def semantic(student: Artifact, vanilla: Artifact | None = None, *, human: Artifact | None, seed: int) -> list[Score]:
    """The scores of sentence vectors; those of the human answers are the reference."""
    sets: Any = [read_vectors(each) if each else (None, {"id": None}) for each in (student, vanilla, human)]
    (vectors, rows), (vanilla_vectors, vanilla_rows), (human_vectors, human_rows) = sets
    arguments = (vectors, vanilla_vectors, human_vectors, rows["id"], vanilla_rows["id"], human_rows["id"], seed)
    notes = truncated_note(student), truncated_note(vanilla, "of the vanilla student's ") if vanilla else ""
    human_note = truncated_note(human, "human ") if human else ""
    scores = [with_notes(score, *notes) for score in semantic_scores(*arguments)]
    return [
        replace(score, note=join_notes(score.note, human_note))
        if score.name.removesuffix(VANILLA) in AGAINST_HUMAN
        else score
        for score in scores
    ]


def is_whole(row: Sample) -> bool:
    return row.finish != "length" and bool(words(row.response))


def answer_items(groups: dict[str, list[Sample]]) -> Iterator[dict[str, Any]]:
    """What is measured of one answer at a time."""
    for key, rows in groups.items():
        split = [words(row.response) for row in rows]
        for row, text, repeated in zip(rows, split, repetitions(split), strict=True):
            values = {
                "response_words": len(text),
                "sentences": len(sentences(row.response)),
                "repetition_4": repeated,
                "empty": not text,
            }
            size = len(row.response.encode())
            for name, value in values.items():
                yield item(key, name, value, sample=row.sample, bytes=size, finish=row.finish)
