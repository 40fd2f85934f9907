"""The verb `export`: a model that was trained here as a folder for others, with a card that says what it learnt."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord, launched
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.core.terminal import echo
from synthdiv.core.types import Artifact, ConfigError
from synthdiv.engine.job import Job
from synthdiv.models.load import base_of, load_whole, opening, stacked, tokenizer_of, weights_folder
from synthdiv.study.config import Track

USAGE = "`synthdiv export train/4f1c FOLDER` (--adapter: an adapter is not merged into its base)"


def export(root: Path, words: list[str], merge: bool) -> int:
    """Write the model that the first word names, by the first digits of its key, into the folder that the second is."""
    if len(words) != 2:
        raise ConfigError(f"export: takes a node and a folder: {USAGE}")
    folder = Path(words[1]).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"export {words[1]}: the folder exists and is not empty; name a new one")
    node, cell, sweep = find(root, words[0])
    artifact = Store(root).artifact(node, weights=True)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")  # what was interrupted is no model
    draft.mkdir(parents=True)
    try:
        precision = export_model(artifact, draft, merge)
        (draft / "README.md").write_text(card(artifact, cell, sweep, precision), encoding="utf-8")
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    echo(words[1])
    return 0


def find(root: Path, name: str) -> tuple[Node, CellRecord, str]:
    """The node of a trained model, a cell that has it, and their sweep. ConfigError unless one built model is named."""
    digits, nodes = name.rpartition("/")[2], dict[str, tuple[NodeRecord, Ledger]]()
    for sweep in launched(root):
        ledger = Ledger(root, sweep)
        for record in ledger.nodes():
            if record.key.startswith(digits) and record.stage in ("train", "pretrain"):
                nodes[record.key] = (record, ledger)
    built = {key: pair for key, pair in nodes.items() if (root / "artifacts" / pair[0].stage / key).is_dir()}
    if len(built) != 1:
        names = ", ".join(f"{record.stage}/{key[:8]}" for key, (record, _) in sorted(built.items())[:9])
        raise ConfigError(
            f"export {name}: names {f'{len(built)} models ({names})' if built else 'no model that was trained'} in "
            f"{root}; give more digits of a key, as the manifests of {root}/artifacts/train have them"
        )
    ((key, (_, ledger)),) = built.items()
    job = Job("export", ledger.name, Runtime(), Track(), None, ledger.nodes())
    job.graph = ancestors(key, job.graph)
    return job.rebuilt()[key], next(cell for cell in ledger.cells() if key in cell.nodes), ledger.name


def ancestors(key: str, graph: list[NodeRecord]) -> list[NodeRecord]:
    """The node and all that it depends on, inputs first, as they are in `graph`."""
    keys = {key}
    for record in reversed(graph):
        if record.key in keys:
            keys |= {*record.inputs.values()}
    return [record for record in graph if record.key in keys]


def export_model(artifact: Artifact, folder: Path, merge: bool) -> str:
    """Write weights and tokenizer into `folder`; return their number format, that of the checkpoint it began with. An
    adapter that is not merged names its base: the hub repository, else the folder where the base lies here."""
    import torch
    import transformers

    adapter, origin = artifact.path / "adapter", weights_folder(first_model(artifact))
    with opening(origin):
        dtype = transformers.AutoConfig.from_pretrained(origin, trust_remote_code=False).dtype or torch.float32
    if merge or not adapter.is_dir():
        model, _ = load_whole(artifact, "fp32")  # as it was trained: rounded once, at the end
        model.to(dtype).save_pretrained(folder)
        tokenizer_of(artifact).save_pretrained(folder)
    elif stacked(artifact):
        raise ConfigError(
            "export --adapter: its student is an adapter too, and no folder has the merged weights of that; "
            "export it without --adapter"
        )
    else:
        shutil.copytree(adapter, folder, dirs_exist_ok=True)
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        local = str(weights_folder(base_of(artifact)).resolve())
        config["base_model_name_or_path"] = config["base_model_name_or_path"] or local
        file.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return str(dtype).removeprefix("torch.")


def first_model(artifact: Artifact) -> Artifact:
    """The model that was there before any fine-tuning."""
    return first_model(artifact.inputs["student"]) if "student" in artifact.inputs else artifact


def card(artifact: Artifact, cell: CellRecord, sweep: str, precision: str) -> str:
    """The model card: base, data by source, recipe and licences."""
    origin, manifest = first_model(artifact), artifact.manifest
    fields, summary = manifest["fields"], manifest["summary"]
    base = getattr(origin.stage, "hub", None) or getattr(origin.stage, "path", None) or "a model trained from nothing"
    licences = {name: licence or "unknown" for name, licence in cell.licences.items()}
    front: dict[str, Any] = {"library_name": "transformers", "tags": ["synthdiv"]}
    front |= {"base_model": origin.stage.hub} if getattr(origin.stage, "hub", None) else {}
    front |= {"license": licences["student"]} if licences.get("student", "unknown") != "unknown" else {}
    mix = artifact.inputs["mix"].manifest["summary"] if "mix" in artifact.inputs else {}
    lines = ["---", *(f"{name}: {json.dumps(value)}" for name, value in front.items()), "---", ""]
    lines += [f"# {artifact.stage.name} {artifact.key[:8]}", "", f"- base: {base}", f"- weights: {precision}"]
    lines += [f"- trained on: {count} answers by {source}" for source, count in mix.get("sources", {}).items()]
    lines += [f"- licence of {name}: {licence}" for name, licence in licences.items()]
    numbers = [name for name in ("steps", "supervised_tokens", "loss", "parameters") if name in summary]
    lines += [f"- {name}: {summary[name]}" for name in numbers]
    lines += [f"- synthdiv: key {artifact.key}", "", "Command:", "", f"    {cell.command(sweep)}", "", "Recipe:", ""]
    return "\n".join([*lines, *(f"    {name}: {json.dumps(value)}" for name, value in sorted(fields.items())), ""])
