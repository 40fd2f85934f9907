"""A mix as token ids of one student: rendered and tokenised once, for every training on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, Run
from synthdiv.mix.mix import read_mix
from synthdiv.models.chat import Chat
from synthdiv.models.load import tokenizer_of

FILE = "tokens.parquet"
Pair = tuple[list[int], list[int]]  # everything before the answer; the answer and the token that ends it


@dataclass
class Tokens(Stage):
    """Inputs: `student`, `mix`, `prompts`. Output: `tokens.parquet`, token ids `prompt` and `answer` of each row."""

    name = "tokens"
    unit = "rows"
    bytes_per_unit = 2000

    def input_names(self) -> tuple[str, ...]:
        return ("student", "mix", "prompts")

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        return Work(inputs["mix"].stage.rows)  # type: ignore[attr-defined]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        student, mix, prompts = inputs["student"], inputs["mix"], inputs["prompts"]
        chat = Chat.for_prompts(tokenizer_of(student), prompts)
        rows = read_mix(mix)
        prompt_ids, answer_ids = zip(*rendered(chat, rows), strict=True)
        ids = pyarrow.list_(pyarrow.int32())
        columns = {"id": [row["id"] for row in rows], "prompt": pyarrow.array(prompt_ids, ids)}
        pyarrow.parquet.write_table(pyarrow.table(columns | {"answer": pyarrow.array(answer_ids, ids)}), out / FILE)
        return {
            "rows": len(rows),
            "tokens": sum(map(len, prompt_ids)) + sum(map(len, answer_ids)),
            "longest": max(len(prompt) + len(answer) for prompt, answer in zip(prompt_ids, answer_ids, strict=True)),
            "system_folded": chat.folded,
        }


def rendered(chat: Chat, mix: list[dict[str, Any]]) -> Iterator[Pair]:
    """Token ids of each row of a mix."""
    prompts = chat.prompts([row["prompt"] for row in mix], [row["id"] for row in mix])
    return zip(prompts, chat.answers([row["response"] for row in mix]), strict=True)


def read_tokens(artifact: Artifact) -> dict[str, Pair]:
    """Token ids of each row by its id."""
    import pyarrow.parquet

    columns = pyarrow.parquet.read_table(artifact.path / FILE).to_pydict()
    pairs = zip(columns["prompt"], columns["answer"], strict=True)
    return dict(zip(columns["id"], pairs, strict=True))
