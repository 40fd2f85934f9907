"""Locators become identities: a file's SHA-256, a hub commit, a row count.

The only step before building that reads files.
Results are remembered by (real path, size, modification time, inode), so each content is read once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from synthdiv.core.files import write_whole
from synthdiv.core.store import file_digest
from synthdiv.core.types import ConfigError, DataError, SynthdivError


class Unresolved(SynthdivError):
    """An identity that cannot be known without going online; `plan` shows it, a launch resolves it."""


class Resolver:
    """Remembers what was read, in `<outputs>/resolved.json`. A launch is `online`: it may ask the hub, and it writes;
    `plan` does neither."""

    def __init__(self, outputs: Path, online: bool = False):
        self.path, self.online = outputs / "resolved.json", online
        try:
            self.known: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            self.known = {}
        self.changed = False

    def remember(self, key: list[Any], compute: Callable[[], Any]) -> Any:
        """`compute()` once for each `key`, over all processes that share the outputs."""
        text = json.dumps(key)
        if text not in self.known:
            self.known[text], self.changed = compute(), True
        return self.known[text]

    def file(self, path: Path) -> str:
        """SHA-256 of one file."""
        return str(self.remember(["sha256", stamp(path)], lambda: file_digest(path)))

    def pinned_file(self, name: str, path: str | None, given: str) -> str:
        """SHA-256 of the file that field `name`.path names. ConfigError if there is none, or `given` is another."""
        if not path or not Path(path).is_file():
            problem = "is a folder; name a file in it" if path and Path(path).is_dir() else "no such file"
            raise ConfigError(f"{name}.path={path}: {problem}")
        return str(pinned(f"{name}.sha256", given, self.file(Path(path))))

    def folder(self, path: Path) -> str:
        """SHA-256 over the names and contents of all files below a folder."""
        names = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()]
        seen = [name for name in names if not any(part.startswith(".") for part in name.parts)]  # no hub bookkeeping
        listing = [[name.as_posix(), self.file(path / name)] for name in seen]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()

    def hub_commit(self, repo: str, revision: str | None, kind: str = "model") -> str:
        """The commit of a hub repository: a full hash as it is, else from the local cache, else from the hub."""
        if revision and len(revision) == 40:
            return revision
        from huggingface_hub import constants

        folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"
        ref = folder / "refs" / (revision or "main")
        if ref.is_file():
            return ref.read_text().strip()
        if not self.online:
            raise Unresolved(f"{repo}: the commit of {revision or 'main'} is not in the local hub cache")
        from huggingface_hub import HfApi

        try:
            return str(HfApi().repo_info(repo, revision=revision, repo_type=kind).sha)
        except Exception as error:
            raise ConfigError(
                f"{repo}: the hub gave no commit of {revision or 'main'} ({type(error).__name__}). "
                "Give a local path, or a revision that is in the local hub cache"
            ) from error

    def save(self) -> None:
        """Write what was resolved; where outputs are read-only, files are read again next time."""
        if not self.changed or not self.online:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(self.known))


def stamp(path: Path) -> tuple[str, int, int, int]:
    """Facts of a file that change with its content."""
    facts = path.stat()
    return os.path.realpath(path), facts.st_size, facts.st_mtime_ns, facts.st_ino


@cache
def _digest(facts: tuple[str, int, int, int]) -> str:
    """SHA-256 of the file with this stamp."""
    return file_digest(Path(facts[0]))


def unchanged(name: str, path: str | None, sha256: str) -> None:
    """Refuse a file whose content is no longer what the key says: it was edited or removed since it was resolved."""
    if not path or not sha256:
        return
    try:
        actual = _digest(stamp(Path(path)))
    except FileNotFoundError:
        raise DataError(f"{name}={path}: no such file any more; put it back and run the same command again") from None
    if actual != sha256:
        raise DataError(f"{name}={path}: the file changed since this sweep was launched; run the same command again")


def pinned(name: str, given: Any, actual: Any) -> Any:
    """`actual`, unless the configuration pinned another value."""
    if given and given != actual:
        raise ConfigError(f"{name}={given}: the content has {actual}. It changed since it was pinned")
    return actual
