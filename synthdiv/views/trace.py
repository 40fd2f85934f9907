"""The verb `trace`: the source, settings, model, request, shard and mixes of every answer to a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synthdiv.core.store import MANIFEST
from synthdiv.core.terminal import echo
from synthdiv.core.types import ConfigError
from synthdiv.generate.answer import LOG, ROWS


def trace(root: Path, prompt: str, as_json: bool) -> int:
    """Print every answer below `root` to the prompt with this id, and the mixes that contain it."""
    generated = [*answers(root, prompt)]
    mixes = [*mix_rows(root, prompt)]
    if not generated and not mixes:
        raise ConfigError(
            f"trace {prompt}: no answer to a prompt of this id in {root}; ids are in the column `id` of mix.parquet "
            "and rows.jsonl; runtime.outputs=FOLDER selects other outputs"
        )
    for answer in generated:
        answer["mixes"] = [row for row in mixes if answer["shard"] in row["shards"]
                           and (row["source"], row["sample"]) == (answer["source"], answer["sample"])]  # fmt: skip
    human = [row for row in mixes if row["source"] == "human"]
    if as_json:
        echo(json.dumps({"id": prompt, "answers": generated, "human": human}, ensure_ascii=False, indent=1))
        return 0
    echo(f"{prompt}\n{indented((generated or human)[0]['prompt'])}")
    for answer in generated:
        echo("\n".join(answer_lines(answer)))
    for row in human:
        echo(f"\nhuman\n{indented(row['response'])}\n  in         {row['mix']}, row {row['position']}")
    return 0


def answers(root: Path, prompt: str) -> Iterator[dict[str, Any]]:
    """Every generated answer to the prompt, with facts from the manifest of its shard and the log of its request."""
    for manifest in sorted(root.glob(f"artifacts/generate/[!.]*/{MANIFEST}")):
        folder, facts = manifest.parent, None
        logs = {line.pop("sample"): line for line in lines(folder / LOG, prompt) if line.pop("id")}
        for row in lines(folder / ROWS, prompt):
            facts = facts or json.loads(manifest.read_text(encoding="utf-8"))
            model = facts["inputs"].get("model")
            yield row | {
                "backend": facts["fields"]["backend"],
                "sampling": facts["fields"]["sampling"],
                "model_stage": model["stage"] if model else "",
                "hosted": hosted(root, row["model"]) if model and model["stage"] == "hosted" else None,
                "request": logs.get(row["sample"], {}),
                "shard": folder.name,
                "file": str(folder / ROWS),
                "manifest": str(manifest),
            }  # fmt: skip


def lines(file: Path, prompt: str) -> Iterator[dict[str, Any]]:
    """The rows of a file whose `id` is `prompt`; other rows are not parsed."""
    start = json.dumps({"id": prompt}, ensure_ascii=False)[:-1]
    if file.is_file():
        with file.open(encoding="utf-8") as handle:
            yield from (json.loads(line) for line in handle if line.startswith((start + ",", start + "}")))


def hosted(root: Path, key: str) -> dict[str, Any]:
    """The server of a hosted model, and its name on that server."""
    file = root / "artifacts" / "hosted" / key / "model.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def mix_rows(root: Path, prompt: str) -> Iterator[dict[str, Any]]:
    """The rows of all mixes that answer the prompt, each with the shards from which its mix was built."""
    import pyarrow.parquet

    for manifest in sorted(root.glob(f"artifacts/mix/[!.]*/{MANIFEST}")):
        inputs = json.loads(manifest.read_text(encoding="utf-8"))["inputs"]
        shards = [item["key"] for item in inputs.values() if item["stage"] == "generate"]
        table = pyarrow.parquet.read_table(manifest.parent / "mix.parquet", filters=[("id", "=", prompt)])
        for row in table.to_pylist():
            columns = {name: row[name] for name in ("prompt", "response", "source", "sample", "position")}
            yield columns | {"mix": str(manifest.parent / "mix.parquet"), "shards": shards}


def answer_lines(answer: dict[str, Any]) -> Iterator[str]:
    """One answer as lines of text."""
    yield f"\n{answer['source']}, sample {answer['sample']}\n{indented(answer['response'])}"
    if answer["backend"] == "recorded":
        yield "  recorded   nothing was sampled; the file and its hash are in the manifest"
    else:
        sampling = answer["sampling"]
        settings = ", ".join(f"{name} {value}" for name, value in sampling.items())
        yield f"  settings   {answer['backend']}: {settings}; random stream {answer['seed']}"
        server = answer["hosted"]
        where = f" ({server['id']} at {server['server']})" if server else ""
        yield f"  model      {answer['model_stage']} {answer['model'][:8]}{where}"
        tokens = f"{answer['prompt_tokens']} prompt tokens, {answer['response_tokens']} new"
        yield f"  finish     {answer['finish']}, {tokens}"
    if request := dict(answer["request"]):
        epoch = request.pop("at", None)
        when = f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d %H:%M:%S} UTC, " if epoch else ""
        facts = [f"{name} {value}" for name, value in request.items() if name != "logprobs" and value not in ("", None)]
        yield f"  request    {when}{', '.join(facts)}"
    yield f"  shard      {answer['file']}"
    yield f"  manifest   {answer['manifest']}"
    for row in answer["mixes"]:
        yield f"  in         {row['mix']}, row {row['position']}"


def indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines() or [""])
