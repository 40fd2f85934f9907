"""A small study that is built through the real store and ledger; its stages write given scores."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.core.stage import Node, Stage, digest
from synthdiv.core.store import Store
from synthdiv.core.types import Sample, Score
from synthdiv.evaluate.suite import Suite, item, write_suite
from tests.graphs import Taking, taking

RUN: Any = SimpleNamespace(
    device="cpu", rank=0, world_size=1, log=lambda message: None, begin=lambda out: None, end=lambda: None
)


@dataclass
class Train(Stage):
    name = "train"
    tag: str = ""

    def build(self, inputs: Any, out: Path, run: Any) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        curve = [{"step": step, "loss": 2.0 / step, "lr": 1e-4} for step in (1, 2, 3)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(curve), out / "metrics.parquet")
        return {}


@dataclass
class Prompts(Stage):
    name = "prompts"
    words: str = ""

    def build(self, inputs: Any, out: Path, run: Any) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        rows: list[dict[str, Any]] = [
            {"id": f"p{at}", "category": "riddle", "prompt": f"question {at}{self.words}", "response": "a human answer"}
            | {"split": "test" if at < 3 else "train", "position": at}
            for at in range(5)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out / "prompts.parquet")
        return {}


@dataclass
class Generate(Taking):
    name = "generate"
    decoding: str = ""
    words: str = ""

    def build(self, inputs: Any, out: Path, run: Any) -> dict[str, Any]:
        places = [(prompt, sample) for prompt in (2, 0, 1) for sample in (1, 0)]
        rows = [
            Sample(f"p{p}", "question", f"{self.decoding} {p} {s}{self.words}", "student", sample=s) for p, s in places
        ]
        (out / "rows.jsonl").write_text("".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows))
        return {}


class Headlines(Suite):
    headlines = ("nll_2", "published/self_bleu_3@words", "truth/excess_nll", "truth/coverage")


@dataclass
class Collapse(Taking):
    name = "collapse"
    value: float = 1.0
    undefined: bool = False

    def build(self, inputs: Any, out: Path, run: Any) -> dict[str, Any]:
        x, bleu = self.value, "published/self_bleu_3@words"
        self_bleu = Score(bleu, 10 * x, 9, 9 * x, 11 * x, "0-100", False)
        if self.undefined:
            self_bleu = Score(bleu, math.nan, 0, unit="0-100", higher_is_better=False, note="too few words")
        scores = [Score("nll_2", x, 9, x - 0.1, x + 0.1, "nats/token", False, least=0), self_bleu]
        write_suite(out, scores, [item("p0", "nll_2", x)], Headlines)
        return {}


@dataclass
class Truth(Taking):
    name = "truth"
    value: float = 1.0

    def build(self, inputs: Any, out: Path, run: Any) -> dict[str, Any]:
        infinite = Score("truth/excess_nll", math.inf, 4, unit="nats/answer", higher_is_better=False, note="q is 0")
        scores = [infinite, Score("truth/coverage", 0.5, 4, 0.4, 0.6, "share", True)]
        write_suite(out, scores, [item("p0", "x", 1.0)], Headlines)
        return {}


class Study:
    """Adds cells to a sweep; each test selects what is built."""

    def __init__(self, root: Path, name: str = "eggs") -> None:
        self.root, self.ledger, self.store = root, Ledger(root, name, "test"), Store(root)
        self.prompts, self.words = "p", ""  # the key of the prompt set, and what every answer ends with

    def ask(self, words: str) -> None:
        """Build a prompt set whose prompts end with these words, for the cells that are added next."""
        node = Node(Prompts(words))
        self.store.obtain(node, RUN)
        self.prompts, self.words = node.key, words

    def suites(self, tag: str, value: float, undefined: bool) -> tuple[Node | None, dict[str, Node]]:
        train = None if tag == "vanilla" else Node(Train(tag))
        inputs = (train,) if train else ()
        answers = [taking(Generate(decoding, self.words), *inputs) for decoding in ("plain", "published")]
        truth = taking(Truth(value=value), *inputs)
        return train, {"collapse": taking(Collapse(value=value, undefined=undefined), *answers), "truth": truth}

    def cell(
        self, mix: str, value: float, seed: int = 0, build: str = "all", undefined: bool = False, unmatched: str = "",
        **axes: Any,
    ) -> CellRecord:  # fmt: skip
        """A cell whose `nll_2` is `value`. `build`: all, some (the truth suite is missing) or none."""
        axes = {"mix": mix, "source": "n/a", "generators": "n/a", "student": "toy"} | axes
        train, suites = self.suites(f"{mix} {sorted(axes.items())} {seed}", value, undefined)
        _, vanilla = self.suites("vanilla", 9.0, False)
        nodes: dict[str, Node] = {}
        for node in (*vanilla.values(), *suites.values()):
            nodes |= node.ancestry()
        answers = (node.key for node in suites["collapse"].inputs.values())
        record = CellRecord(
            key=digest(sorted([name, node.key] for name, node in suites.items())),
            arm=digest(sorted(axes.items())),
            overrides=[f"mix={mix}", f"train.seed={seed}"],
            axes=axes,
            seeds={"train.seed": seed, "evaluate.respond.seed": 0},
            responses=dict(zip(("plain", "published"), answers, strict=True)),
            suites={name: node.key for name, node in suites.items()},
            vanilla={name: node.key for name, node in vanilla.items()},
            nodes=list(nodes),
            train=train.key if train else None,
            prompts=self.prompts,
            unmatched=unmatched,
        )
        inputs = {node.key: {name: inner.key for name, inner in node.inputs.items()} for node in nodes.values()}
        self.ledger.add([record], [NodeRecord(key, node.stage.name, inputs[key], {}) for key, node in nodes.items()])
        for key, node in nodes.items():
            if build == "all" or (build == "some" and key != record.suites["truth"]):
                self.store.obtain(node, RUN)  # inputs come first
        return record


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)
