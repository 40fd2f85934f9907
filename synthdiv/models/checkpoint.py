"""The `checkpoint` stage: identified by the SHA-256 over all files of a local folder, or by a hub commit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.fields import locator
from synthdiv.core.resolver import Resolver, pinned
from synthdiv.core.stage import Stage
from synthdiv.core.types import ConfigError

RENDERED = ("messages", "add_generation_prompt", "date_string")  # variables that rendering sets


@dataclass
class Checkpoint(Stage):
    """An existing model of transformers or sentence-transformers, in a local folder or on the hub."""

    name = "checkpoint"
    model = True
    located = True

    path: str | None = locator()
    """A local folder with `config.json`, safetensors and the tokenizer; null: `hub`."""
    hub: str | None = locator()
    """A hub repository, like `org/name`; null: `path`."""
    revision: str | None = locator()
    """Branch, tag or commit on the hub; null: the main branch. A launch freezes its commit."""
    sha256: str = ""
    """Content of the folder, filled in by resolving; given beforehand it pins the content."""
    commit: str = ""
    """Commit of the hub repository, filled in by resolving; given beforehand it pins the content."""
    chat_template: str | None = None
    """A chat template (Jinja) in place of the tokenizer's own; null: its own."""
    template_kwargs: str = "{}"
    """Variables of the chat template as JSON text, such as {"enable_thinking": false}."""

    def check(self, name: str) -> list[str]:
        problems = []
        if bool(self.path) == bool(self.hub):
            problems.append(f"{name}.path={self.path}, {name}.hub={self.hub}: give one of the two")
        try:
            valid = all(each.isidentifier() and each not in RENDERED for each in self.variables())
        except (RecursionError, ValueError):
            valid = False
        if not valid:
            problems.append(
                f"{name}.template_kwargs={self.template_kwargs!r}: needs a JSON object of variables of the chat "
                f"template, none of which is {', '.join(RENDERED)}"
            )
        return problems

    def variables(self) -> dict[str, Any]:
        """The variables of the chat template. Raises ValueError if they are not a JSON object."""
        variables = json.loads(self.template_kwargs)
        if not isinstance(variables, dict):
            raise ValueError("not an object")
        return variables

    def resolve(self, resolver: Resolver) -> None:
        self.template_kwargs = json.dumps(self.variables(), sort_keys=True)
        if self.hub:
            try:
                commit = resolver.hub_commit(self.hub, self.commit or self.revision)
            except ConfigError as error:
                raise ConfigError(f"checkpoint.hub={problem}" for problem in error.problems) from error
            self.commit = pinned("checkpoint.commit", self.commit, commit)
            return
        folder = Path(self.path or "")
        if not (folder / "config.json").is_file():
            raise ConfigError(f"checkpoint.path={self.path}: no checkpoint there (config.json is missing)")
        if not any(folder.glob("*.safetensors")):
            pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
            contents = f"only pickled weights ({', '.join(pickles)}), which can run code when opened" if pickles else ""
            raise ConfigError(
                f"checkpoint.path={self.path}: holds {contents or 'no weights'}. Only safetensors are read; convert it "
                "with `model.save_pretrained(NEW)` of transformers on a machine where you trust the file"
            )
        if problem := folder_problem(folder):
            raise ConfigError(f"checkpoint.path={self.path}: {problem}")
        self.sha256 = pinned("checkpoint.sha256", self.sha256, resolver.folder(folder))

    def locate(self) -> Path | None:
        return Path(self.path) if self.path else snapshot(str(self.hub), self.commit, False)

    def fetch(self) -> None:
        """Bring a hub checkpoint into the local cache."""
        if self.hub:
            snapshot(str(self.hub), self.commit, True)


def folder_problem(folder: Path) -> str | None:
    """What transformers would load from elsewhere than the files that are the identity of a checkpoint."""
    if (folder / "adapter_config.json").is_file():
        return (
            "adapter_config.json lies beside full weights, and transformers would put that adapter on them; remove it "
            "(and adapter_model.safetensors), or merge the adapter"
        )
    for index in sorted(folder.glob("*.index.json")):
        try:
            files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            return f"{index.name} is no index of weights ({type(error).__name__}); download the checkpoint again"
        outside = sorted({str(file) for file in files if Path(str(file)).name != file or str(file).startswith(".")})
        if outside:
            return f"{index.name} names {outside[0]}, which is no file of this folder; put the weights beside it"
    return None


def snapshot(hub: str, commit: str, online: bool) -> Path | None:
    """Return the local copy of a hub commit, without pickled weights; None if not cached and `online` is false."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    pickles = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.ot", "*.onnx", "openvino/*"]
    pickles += ["consolidated*", "original/*"]  # the same weights in the format of their authors
    try:
        return Path(snapshot_download(hub, revision=commit, ignore_patterns=pickles, local_files_only=not online))
    except LocalEntryNotFoundError as error:
        if online:
            raise ConfigError(f"checkpoint.hub={hub}: commit {commit} could not be fetched ({error})") from error
        return None
