"""Log-likelihoods of given answers under a model: human test answers, a student's own, those of several authors, or
every answer that the law of the toy world allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from synthdiv.core.files import read_rows
from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, DataError, Run, Score
from synthdiv.evaluate.judge_prompts import taken_rows
from synthdiv.evaluate.suite import item, with_notes
from synthdiv.generate.generate import prompt_tokens, read_samples
from synthdiv.measures.perplexity import AnswerNLL, likelihood_scores, own_answer_scores, published_perplexity
from synthdiv.measures.tails import own_answer_tail_scores, tail_scores
from synthdiv.measures.temperature import INDEX_OF_ONE, TemperatureCurve, nll_after_fit, temperature_scores
from synthdiv.models.chat import Chat
from synthdiv.models.load import Precision
from synthdiv.models.score import answer_curves, answer_log_likelihoods
from synthdiv.prompts.prompt_set import read_prompts, toy_prompt
from synthdiv.prompts.toy import Law

FILE = "likelihood.parquet"
SUPPORT = 300  # answers that the law of a toy prompt allows, for planning


class Target(Enum):
    """Whose answers are scored."""

    human = "human"
    support = "support"
    own = "own"
    authors = "authors"


class Example(NamedTuple):
    """One answer to be scored: to which prompt row, its place, sample index or author there, and how it ended."""

    row: dict[str, Any]
    order: int
    text: str
    finish: str = ""


@dataclass
class Likelihood(Stage):
    """Log-likelihoods of answers to the test prompts under a model.

    Inputs: `prompts`, `model`, for target `own` the `answers` of a student whose vanilla self is `model`, and for
    `authors` by number the answers of each. Output: `likelihood.parquet`, one row an answer.

    Columns: id, sample (of `own`, else 0), order (place among the answers of its prompt; the author), finish (of `own`
    and `authors`, else empty), response, tokens, bytes, nll (nats) and token_nll (nats, float32 a token). For `human`
    also nll_at: nll at each of `TEMPERATURES`, for sharpness and support; for `support` value_nll: nll of the tokens of
    the value stated.

    Template applied, answer tokens plus one EOS, T = 1, nothing removed; what the template writes before an answer
    belongs to the prompt. An own answer that was cut at the token limit
    has no EOS, because the model did not end there; an empty one is its EOS alone. Own answers are tokenised again from
    their text, which may give other tokens than were drawn; what then exceeds the context is left out, of `bytes` too,
    and the summary counts such answers as `cut`.
    """

    name = "likelihood"
    version = 5
    model_input = "model"
    unit = "answers"
    bytes_per_unit = 1000
    less_memory = "lower evaluate.batch_tokens"

    target: Target = Target.human
    """Whose answers are scored."""
    limit: int = 0
    """How many test prompts of the stratified order are used; 0: all."""
    precision: Precision = Precision.fp32
    """The format of the weights."""
    batch_tokens: int = 16384
    """Bound on rows × tokens of a batch."""
    authors: int = 0
    """How many authors there are, of target `authors`; the first answer of each to a prompt is scored."""

    def input_names(self) -> tuple[str, ...]:
        answers = ["answers"] if self.target is Target.own else map(str, range(self.authors))
        return ("prompts", "model", *answers)

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        if self.target is Target.own:
            count = inputs["answers"].stage.answers()  # type: ignore[attr-defined]
        else:
            test: int = inputs["prompts"].stage.test  # type: ignore[attr-defined]
            count = min(self.limit or test, test) * (SUPPORT if self.target is Target.support else self.authors or 1)
        answer: int = inputs["prompts"].stage.assumed_tokens[1]  # type: ignore[attr-defined]
        return Work(count, read_tokens=count * (prompt_tokens(inputs, measured) + answer))

    def answers(self, inputs: Mapping[str, Artifact]) -> list[Example]:
        """Every answer to be scored, prompt after prompt."""
        prompts = inputs["prompts"]
        rows = read_prompts(prompts, "test", self.limit or None)
        if self.target is Target.human:
            return [Example(row, 0, row["response"]) for row in rows]
        if self.target is Target.own:
            return own_responses(rows, inputs["answers"])
        if self.target is Target.authors:
            by_id = {row["id"]: row for row in rows}
            return [
                Example(by_id.get(row["id"], row), author, row["response"], row["finish"])
                for author in range(self.authors)
                for row in taken_rows(inputs[str(author)], prompts, self.limit, 1)
                if row["finish"] != "failed"
            ]
        law = Law(prompts.stage.toy.world)
        return [Example(row, place, text) for row in rows for place, text in enumerate(law.support(toy_prompt(row))[0])]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        prompts, model = inputs["prompts"], inputs["model"]
        answers = self.answers(inputs)
        opened = run.model(model, self.precision.value)
        chat = Chat.for_prompts(opened.tokenizer, prompts)
        id_pairs = chat.scored_pairs([answer.row["prompt"] for answer in answers], [answer.text for answer in answers])
        whole = [
            (prompt, (ids[:-1] or ids) if answer.finish == "length" else ids)
            for answer, (prompt, ids) in zip(answers, id_pairs, strict=True)
        ]
        # texts that models wrote are cut where they do not fit; others are refused
        room = opened.context if self.target in (Target.own, Target.authors) else None
        pairs = [(prompt, ids if room is None else ids[: max(1, room - len(prompt))]) for prompt, ids in whole]
        cut = [len(ids) < len(all_ids) for (_, ids), (_, all_ids) in zip(pairs, whole, strict=True)]
        scored = [
            opened.tokenizer.decode(ids, clean_up_tokenization_spaces=False) if short else answer.text
            for answer, (_, ids), short in zip(answers, pairs, cut, strict=True)
        ]
        table = {
            "id": [answer.row["id"] for answer in answers],
            "sample": [answer.order if self.target is Target.own else 0 for answer in answers],
            "order": [answer.order for answer in answers],
            "finish": [answer.finish for answer in answers],
            "response": [answer.text for answer in answers],
            "tokens": [len(ids) for _, ids in pairs],
            "bytes": [len(text.encode()) for text in scored],
        }
        if self.target is Target.human:
            curves = answer_curves(opened, pairs, self.batch_tokens, run.progress)
            values = [curve[:, INDEX_OF_ONE] for curve in curves]
            table["nll_at"] = [-curve.sum(axis=0, dtype="float64") for curve in curves]
        else:
            values = answer_log_likelihoods(opened, pairs, self.batch_tokens, run.progress)
        table["nll"] = [-float(value.sum(dtype="float64")) for value in values]
        table["token_nll"] = [-value for value in values]
        if self.target is Target.support:
            law = Law(prompts.stage.toy.world)
            facts = {
                key: law.value(toy_prompt(row))
                for key, row in {answer.row["id"]: answer.row for answer in answers}.items()
            }
            table["value_nll"] = [
                float(-value[tokens_of(facts[answer.row["id"]], ids, opened.tokenizer)].sum(dtype="float64"))
                for answer, (_, ids), value in zip(answers, pairs, values, strict=True)
            ]
        pyarrow.parquet.write_table(pyarrow.table(table), out / FILE)
        return {
            "answers": len(answers),
            "tokens": sum(table["tokens"]),
            "cut": sum(cut),
            "system_folded": chat.folded,
        }


def tokens_of(word: str, ids: list[int], tokenizer: Any) -> list[int]:
    """Where the tokens are that spell the first occurrence of a word in a text given as token ids."""
    *starts, text = tokenizer.batch_decode(
        [ids[:end] for end in range(len(ids) + 1)], clean_up_tokenization_spaces=False
    )
    ends, first = [len(start) for start in (*starts, text)], text.index(word)
    return [place for place in range(len(ids)) if ends[place] < first + len(word) and ends[place + 1] > first]


def own_responses(rows: list[dict[str, Any]], answers: Artifact) -> list[Example]:
    """The answers to these prompts in a finished `generate` artifact, samples in order."""
    samples: dict[str, list[Example]] = {row["id"]: [] for row in rows}
    known = {row["id"]: row for row in rows}
    for row in sorted(read_samples(answers.path), key=lambda row: row.sample):
        if row.id in known:
            samples[row.id].append(Example(known[row.id], row.sample, row.response, row.finish))
    missing = [key for key, responses in samples.items() if not responses]
    if missing:
        raise DataError(f"{len(missing)} test prompts have no answer (first {missing[0]!r}): answer the test split")
    return [each for responses in samples.values() for each in responses]


def read_likelihood(artifact: Artifact) -> list[dict[str, Any]]:
    """The rows of a finished `likelihood` artifact."""
    return read_rows(artifact.path / FILE)


def human_scores(
    student: Artifact, vanilla: Artifact | None = None, *, seed: int = 0
) -> tuple[list[Score], list[dict[str, Any]]]:
    """Perplexity 2 of two `human` artifacts, whole, by tail, and split into sharpness and support; and its items."""
    answers, tokens, curves = human_answers(student)
    base = human_answers(vanilla) if vanilla else (None, None, None)
    per_token = {key: answer.nll / answer.tokens for key, answer in answers.items()}
    scores = likelihood_scores(answers, base[0]) + tail_scores(tokens, base[1], seed)
    scores += [*temperature_scores(curves, base[2], seed), published_perplexity([*per_token.values()])]
    items = [
        item(key, name, value, bytes=answers[key].bytes)
        for name, values in (("nll_2", per_token), ("nll_2_support", nll_after_fit(curves, seed)))
        for key, value in values.items()
    ]
    return scores, items


def human_answers(
    artifact: Artifact,
) -> tuple[dict[str, AnswerNLL], dict[str, list[float]], dict[str, TemperatureCurve]]:
    """What `likelihood_scores`, `tail_scores` and `temperature_scores` take of a `human` artifact, by prompt id."""
    rows = {row["id"]: row for row in read_likelihood(artifact)}
    return (
        {key: answer_nll(row) for key, row in rows.items()},
        {key: row["token_nll"] for key, row in rows.items()},
        {key: TemperatureCurve(row["nll_at"], row["tokens"]) for key, row in rows.items()},
    )


def perplexity_1_scores(student: Artifact, vanilla: Artifact | None = None, *, seed: int = 0) -> list[Score]:
    """Perplexity 1 of two `own` artifacts, whole and by tail; with a note where answers were cut at the context."""
    base = (own_answers(vanilla), own_tokens(vanilla)) if vanilla else (None, None)
    scores = own_answer_scores(own_answers(student), base[0])
    scores += own_answer_tail_scores(own_tokens(student), base[1], seed)
    notes = cut_note(student), cut_note(vanilla, "of the vanilla student's ") if vanilla else ""
    return [with_notes(score, *notes) for score in scores]


def own_answers(artifact: Artifact) -> dict[str, list[AnswerNLL]]:
    """What `own_answer_scores` takes of an `own` artifact: by prompt id, its answers."""
    return _by_prompt(artifact, answer_nll)


def own_tokens(artifact: Artifact) -> dict[str, list[list[float]]]:
    """What `own_answer_tail_scores` takes of an `own` artifact: by prompt id, the tokens of its answers."""
    return _by_prompt(artifact, lambda row: row["token_nll"])


def _by_prompt(artifact: Artifact, part: Callable[[dict[str, Any]], Any]) -> dict[str, list[Any]]:
    answers: dict[str, list[Any]] = defaultdict(list)
    for row in read_likelihood(artifact):
        answers[row["id"]].append(part(row))
    return dict(answers)


def cut_note(artifact: Artifact, owner: str = "") -> str:
    """How many answers of a finished `own` artifact did not fit into the context; or nothing."""
    summary = artifact.manifest["summary"]
    cut = summary["cut"]
    return f"{cut} of {summary['answers']} {owner}answers were longer than the context and cut" if cut else ""


def own_items(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """NLL per token of each answer of an `own` artifact."""
    for row in read_likelihood(artifact):
        facts = {"sample": row["sample"], "bytes": row["bytes"], "finish": row["finish"]}
        yield item(row["id"], "nll_1", row["nll"] / row["tokens"], **facts)


def answer_nll(row: dict[str, Any]) -> AnswerNLL:
    return AnswerNLL(row["nll"], row["tokens"], row["bytes"])
