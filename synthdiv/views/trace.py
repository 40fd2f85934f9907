"""`trace`: where the answers to a prompt came from. Prompt, source, settings, model, request, shard, mixes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synthdiv.core.store import MANIFEST
from synthdiv.core.types import ConfigError
from synthdiv.generate.answer import LOG, ROWS


def trace(root: Path, prompt: str, as_json: bool) -> int:
    """Print every answer to the prompt with this id that lies below `root`, and the mixes that hold it."""
    found = [*answers(root, prompt)]
    mixes = [*places(root, prompt)]
    if not found and not mixes:
        raise ConfigError(
            f"trace {prompt}: no answer to a prompt of this id in {root}; mix.parquet and rows.jsonl have ids in their "
            "column `id`, and runtime.outputs=FOLDER looks elsewhere"
        )
    for answer in found:
        answer["mixes"] = [place for place in mixes if place["shards"] and answer["shard"] in place["shards"]
                           and (place["source"], place["sample"]) == (answer["source"], answer["sample"])]  # fmt: skip
    human = [place for place in mixes if place["source"] == "human"]
    if as_json:
        print(json.dumps({"id": prompt, "answers": found, "human": human}, ensure_ascii=False, indent=1))
        return 0
    print(f"{prompt}\n{indented((found or human)[0]['prompt'])}")
    for answer in found:
        print("\n".join(told(answer)))
    for place in human:
        print(f"\nhuman\n{indented(place['response'])}\n  in         {place['mix']}, row {place['position']}")
    return 0


def answers(root: Path, prompt: str) -> Iterator[dict[str, Any]]:
    """Every answer to the prompt, with what its shard's manifest and its request's line say of it."""
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
    """The rows of a file whose `id` this is; only they are parsed."""
    start = json.dumps({"id": prompt}, ensure_ascii=False)[:-1]
    if file.is_file():
        with file.open(encoding="utf-8") as handle:
            yield from (json.loads(line) for line in handle if line.startswith((start + ",", start + "}")))


def hosted(root: Path, key: str) -> dict[str, Any]:
    """Who holds a hosted model, and its name there."""
    file = root / "artifacts" / "hosted" / key / "model.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def places(root: Path, prompt: str) -> Iterator[dict[str, Any]]:
    """Every row of every mix that answers the prompt, and the shards that the mix was made from."""
    import pyarrow.parquet

    for manifest in sorted(root.glob(f"artifacts/mix/[!.]*/{MANIFEST}")):
        inputs = json.loads(manifest.read_text(encoding="utf-8"))["inputs"]
        shards = [item["key"] for item in inputs.values() if item["stage"] == "generate"]
        table = pyarrow.parquet.read_table(manifest.parent / "mix.parquet", filters=[("id", "=", prompt)])
        for row in table.to_pylist():
            kept = {name: row[name] for name in ("prompt", "response", "source", "sample", "position")}
            yield kept | {"mix": str(manifest.parent / "mix.parquet"), "shards": shards}


def told(answer: dict[str, Any]) -> Iterator[str]:
    """One answer in lines for a person."""
    yield f"\n{answer['source']}, sample {answer['sample']}\n{indented(answer['response'])}"
    if answer["backend"] == "recorded":
        yield "  recorded   nothing was sampled; the file and its hash are in the manifest"
    else:
        sampling = answer["sampling"]
        settings = ", ".join(f"{name} {value}" for name, value in sampling.items())
        yield f"  settings   {answer['backend']}: {settings}; random stream {answer['seed']}"
        held = answer["hosted"]
        where = f" ({held['id']} at {held['server']})" if held else ""
        yield f"  model      {answer['model_stage']} {answer['model'][:8]}{where}"
        tokens = f"{answer['prompt_tokens']} prompt tokens, {answer['response_tokens']} new"
        yield f"  came back  {answer['finish']}, {tokens}"
    if request := dict(answer["request"]):
        at = request.pop("at", None)
        when = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC, " if at else ""
        rest = ", ".join(
            f"{name} {value}" for name, value in request.items() if name != "logprobs" and value not in ("", None)
        )
        yield f"  request    {when}{rest}"
    yield f"  shard      {answer['file']}"
    yield f"  manifest   {answer['manifest']}"
    for place in answer["mixes"]:
        yield f"  in         {place['mix']}, row {place['position']}"


def indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines() or [""])
