"""The verb `trace`: the source, settings, model, request, shard and mixes of every answer to a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synthdiv.core.terminal import echo
from synthdiv.core.types import ConfigError
from synthdiv.generate.answer import LOG, ROWS
from synthdiv.views.history import manifests

WITHHELD = "(withheld: only `report.show_completions=true` shows texts of a confidential prompt set)"


def trace(root: Path, prompt: str, as_json: bool, completions: bool = False) -> int:
    """Print every answer below `root` to the prompt with this id, and the mixes that contain it. Texts of answers to
    confidential prompts are withheld, but with `completions`."""
    generated, mixes = [*answers(root, prompt, completions)], [*mix_rows(root, prompt)]
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
        echo(f"\n{answer['source']}, sample {answer['sample']}\n{indented(answer['response'])}")
        for name, fact in facts_of(answer):
            echo(f"  {name:10} {fact}")
    for row in human:
        echo(f"\nhuman\n{indented(row['response'])}\n  in         {row['mix']}, row {row['position']}")
    return 0


def answers(root: Path, prompt: str, completions: bool = False) -> Iterator[dict[str, Any]]:
    """Every generated answer to the prompt, with facts from the manifest of its shard and the log of its request. Texts
    of confidential shards are withheld unless `completions`."""
    for folder, manifest in manifests(root, "generate"):
        logs = {line.pop("sample"): line for line in lines(folder / LOG, prompt) if line.pop("id")}
        model = manifest["inputs"].get("model")
        hidden = manifest.get("confidential") and not completions
        for row in lines(folder / ROWS, prompt):
            if hidden:
                row |= {"prompt": WITHHELD, "response": WITHHELD}
                logs.pop(row["sample"], None)
            sampling = manifest["fields"]["sampling"] | ({"temperature": row["temperature"]} if model else {})
            server = hosted(root, row["model"]) if model and model["stage"] == "hosted" else None
            row |= {"backend": manifest["fields"]["backend"], "sampling": sampling, "hosted": server}
            row |= {"model_stage": model["stage"] if model else "", "request": logs.get(row["sample"], {})}
            yield row | {"shard": folder.name, "file": str(folder / ROWS), "manifest": str(folder / "manifest.json")}


def lines(file: Path, prompt: str) -> Iterator[dict[str, Any]]:
    """The rows of a file whose `id` is `prompt`; other rows are not parsed, and rows that are cut are left out."""
    start = json.dumps({"id": prompt}, ensure_ascii=False)[:-1]
    if file.is_file():
        with file.open(encoding="utf-8", errors="replace") as handle:
            rows = (line for line in handle if line.startswith((start + ",", start + "}")) and line.endswith("}\n"))
            yield from map(json.loads, rows)


def hosted(root: Path, key: str) -> dict[str, Any]:
    """The server of a hosted model, and its name on that server."""
    file = root / "artifacts" / "hosted" / key / "model.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def mix_rows(root: Path, prompt: str) -> Iterator[dict[str, Any]]:
    """The rows of all mixes that answer the prompt, each with the shards from which its mix was built."""
    import pyarrow
    import pyarrow.parquet

    for folder, manifest in manifests(root, "mix"):
        shards = [item["key"] for item in manifest["inputs"].values() if item["stage"] == "generate"]
        try:
            table = pyarrow.parquet.read_table(folder / "mix.parquet", filters=[("id", "=", prompt)])
        except (OSError, pyarrow.ArrowException) as error:
            echo(f"{folder / 'mix.parquet'}: cannot be read ({error}); see `synthdiv doctor`", error=True)
            continue
        for row in table.to_pylist():
            columns = {name: row[name] for name in ("prompt", "response", "source", "sample", "position")}
            yield columns | {"mix": str(folder / "mix.parquet"), "shards": shards}


def facts_of(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known of one answer, by name."""
    if answer["backend"] == "recorded":
        yield "recorded", "nothing was sampled; the file and its hash are in the manifest"
    else:
        settings, server = listed(answer["sampling"]), answer["hosted"]
        yield "settings", f"{answer['backend']}: {settings}; random stream {answer['seed']}"
        where = f" ({server['id']} at {server['server']})" if server else ""
        yield "model", f"{answer['model_stage']} {answer['model'][:8]}{where}"
        tokens = f"{answer['prompt_tokens']} prompt tokens, {answer['response_tokens']} new"
        yield "finish", f"{answer['finish']}, {tokens}"
    if request := dict(answer["request"]):
        epoch = request.pop("at", None)
        when = f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d %H:%M:%S} UTC, " if epoch else ""
        yield "request", when + listed({name: value for name, value in request.items() if name != "logprobs"})
    yield "shard", answer["file"]
    yield "manifest", answer["manifest"]
    yield from (("in", f"{row['mix']}, row {row['position']}") for row in answer["mixes"])


def listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in ("", None))


def indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines() or [""])
