"""Log-likelihoods of given answers under a model: human test answers, or every answer the toy world's law allows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.models.chat import Chat
from synthdiv.models.load import Precision
from synthdiv.models.score import answer_log_likelihoods
from synthdiv.prompts.stage import read_prompts
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import ToyPrompt
from synthdiv.stage import Stage
from synthdiv.types import Artifact, Run

FILE = "likelihood.parquet"


class Target(Enum):
    """Whose answers are scored."""

    human = "human"
    support = "support"


@dataclass
class Likelihood(Stage):
    """Inputs: prompts, model. Output: `likelihood.parquet`, one row an answer: id, order (place among the answers of
    its prompt), response, tokens (answer tokens and one EOS), bytes, nll (nats) and token_nll (nats, float32 a token).

    Template applied, answer tokens plus one EOS, T = 1, nothing removed (science.md, 5). `limit` test prompts are used;
    0 means all.
    """

    name = "likelihood"

    target: Target = Target.human
    limit: int = 0
    precision: Precision = Precision.fp32
    batch_tokens: int = 16384

    def answers(self, prompts: Artifact) -> list[tuple[dict[str, Any], int, str]]:
        """(prompt row, place, answer) for every answer to be scored."""
        rows = read_prompts(prompts, "test", self.limit or None)
        if self.target is Target.human:
            return [(row, 0, row["response"]) for row in rows]
        law = Law(prompts.stage.toy.world)
        return [(row, place, text) for row in rows for place, text in enumerate(law.support(toy_prompt(row))[0])]

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        prompts, model = inputs
        answers = self.answers(prompts)
        opened = run.model(model, self.precision.value)
        chat = Chat.of(opened.tokenizer, prompts)
        texts = {row["id"]: row["prompt"] for row, _, _ in answers}
        asked = {key: chat.prompt(text) for key, text in texts.items()}
        said = chat.answers([text for _, _, text in answers])
        pairs = [(asked[row["id"]], ids) for (row, _, _), ids in zip(answers, said, strict=True)]
        values = answer_log_likelihoods(opened, pairs, self.batch_tokens, run.progress)
        table = {
            "id": [row["id"] for row, _, _ in answers],
            "order": [place for _, place, _ in answers],
            "response": [text for _, _, text in answers],
            "tokens": [len(value) for value in values],
            "bytes": [len(text.encode()) for _, _, text in answers],
            "nll": [-float(value.sum(dtype="float64")) for value in values],
            "token_nll": [-value for value in values],
        }
        pyarrow.parquet.write_table(pyarrow.table(table), out / FILE)
        return {"answers": len(answers), "tokens": sum(table["tokens"]), "system_folded": chat.folded}


def toy_prompt(row: dict[str, Any]) -> ToyPrompt:
    """The toy world's own record of a prompt row."""
    return ToyPrompt(int(row["category"]), row["entity"], row["relation"], row["phrasing"], row["prompt"])


def read_likelihood(artifact: Artifact) -> list[dict[str, Any]]:
    """The rows of a finished `likelihood` artifact."""
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(artifact.path / FILE).to_pylist()
    return rows
