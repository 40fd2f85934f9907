"""A checkpoint is a fingerprint and no work: the SHA-256 over all files of a local folder, or a hub commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthdiv.resolve import Resolver, pinned
from synthdiv.stage import Stage, locator
from synthdiv.types import ConfigError


@dataclass
class Checkpoint(Stage):
    """A causal language model of transformers: a folder (`path`) or a hub repository (`hub`, `revision`).

    `sha256` and `commit` are filled in by resolving; given beforehand they pin the content.
    """

    name = "checkpoint"
    located = True

    path: str | None = locator()
    hub: str | None = None
    revision: str | None = locator()
    sha256: str = ""
    commit: str = ""

    def check(self) -> list[str]:
        if bool(self.path) == bool(self.hub):
            return [f"checkpoint.path={self.path}, checkpoint.hub={self.hub}: give one of the two"]
        return []

    def resolve(self, resolver: Resolver) -> None:
        if self.hub:
            found = resolver.hub_commit(self.hub, self.commit or self.revision)
            self.commit = pinned("checkpoint.commit", self.commit, found)
            return
        folder = Path(self.path or "")
        if not (folder / "config.json").is_file():
            raise ConfigError(f"checkpoint.path={self.path}: no checkpoint there (config.json is missing)")
        if not any(folder.glob("*.safetensors")):
            pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
            what = (
                f"only pickled weights ({', '.join(pickles)}), which can run code when opened"
                if pickles
                else "no weights"
            )
            raise ConfigError(
                f"checkpoint.path={self.path}: holds {what}. Only safetensors are read; convert it with "
                "`model.save_pretrained(NEW)` of transformers on a machine where you trust the file"
            )
        self.sha256 = pinned("checkpoint.sha256", self.sha256, resolver.folder(folder))

    def locate(self) -> Path:
        if self.path:
            return Path(self.path)
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(str(self.hub), revision=self.commit or self.revision, ignore_patterns=["*.bin", "*.pt"])
        )
