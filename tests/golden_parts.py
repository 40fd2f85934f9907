"""What the study of `test_golden` is made with: the adapter to stages, answers by a rule, a likelihood by a rule."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet

from synthdiv.core.local_run import LocalRun, isolated
from synthdiv.core.stage import Stage, canonical_fields
from synthdiv.core.types import Artifact
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import ToyPrompt
from tests.generate.fault_server import completion
from tests.golden_shown import column, file_now
from tests.models.small import named


def built(folder: Path, run: LocalRun, key: str, stage: Stage, *inputs: Artifact) -> Artifact:
    """The adapter: builds `stage` as the store does, under a key of our own. All that stages ask of what calls them
    stands here and in `located`."""
    out = folder / key
    out.mkdir(parents=True)
    with isolated(0):
        run.begin(out)
        names = named(stage, inputs)
        summary = stage.build(names, out, run)
        run.end()
    message = {"stage": stage.name, "key": key, "fields": canonical_fields(stage), "summary": summary}
    (out / "manifest.json").write_text(json.dumps(message), encoding="utf-8")
    return Artifact(stage, key, out, names)


def located(key: str, path: Path) -> Artifact:
    """The same of a checkpoint, which lies where it says."""
    return Artifact(Checkpoint(str(path)), key, path)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def ruled(law: Law, asked: ToyPrompt, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """An answer of the toy world by the seed of its request: of its likeliest eighth, or of all. Two of them above
    temperature 0.7; some are cut, some empty, some refused."""
    dice, (texts, shares) = random.Random(body["seed"]), law.support(asked)
    order = sorted(range(len(texts)), key=lambda place: (-shares[place], place))
    order = order[: len(order) // 8] if body["model"] == "narrow" else order
    text = " ".join(texts[dice.choice(order)] for _ in range(1 if body["temperature"] == 1 else 2))
    fate = dice.randrange(20)
    answer = completion(body, "id", ("stop", "length"))
    text = "" if fate == 1 else text[:30] if fate == 0 else text
    answer["choices"][0] |= {
        "message": {"role": "assistant", "content": text},
        "finish_reason": {0: "length", 2: "content_filter"}.get(fate, "stop"),
    }
    return 200, answer


def bettered(support: Artifact, law: Law, prompts: list[ToyPrompt], least: float) -> Artifact:
    """The likelihood of the law's support under a student that knows the law, but for a wave of its own."""
    path = support.path / file_now("likelihood.parquet")
    table = pyarrow.parquet.read_table(path)
    keys = dict.fromkeys(table[column("likelihood.parquet", "id")].to_pylist())
    actual: list[float] = []
    for _, prompt in zip(keys, prompts, strict=False):
        shares = law.support(prompt)[1]
        q = [share * (1 + math.sin(place)) * (least if place % 3 else 1) for place, share in enumerate(shares)]
        actual += [-math.log(0.9 * value / sum(q) + 1e-9) for value in q]
    name = column("likelihood.parquet", "nll")
    pyarrow.parquet.write_table(table.set_column(table.column_names.index(name), name, pyarrow.array(actual)), path)
    return support
