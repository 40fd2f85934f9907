"""The store: an artifact lies at `<root>/artifacts/<stage>/<key>/` and exists once. Its manifest means complete.

Until then claims and partial directories lie in `<stage>/.<key>/`: a build never lists the folder of a stage, which may
hold many thousands of artifacts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.claim import Claim, ClaimWatch, Heartbeat, current, take
from synthdiv.core.files import reach, readable_by_owner, regular, regular_tree, write_whole
from synthdiv.core.provenance import session
from synthdiv.core.stage import Node, canonical_fields
from synthdiv.core.types import Artifact, ConfigError, DataError, Run, Superseded, SynthdivError

MANIFEST = "manifest.json"
FORMAT = 2  # of a folder of outputs: keys, manifests and the ledger; outputs of another format are refused


def require_format(root: Path, create: bool = False) -> None:
    """Refuse outputs of another format. Empty outputs have none; a launch (`create`) writes ours."""
    file = root / "format.json"
    try:
        number = json.loads(file.read_text(encoding="utf-8"))["format"]
    except (FileNotFoundError, NotADirectoryError):
        number = 1 if any((root / name).exists() for name in ("artifacts", "sweeps")) else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: cannot be read ({error}); it holds the format of these outputs, {FORMAT}"
        ) from error
    if number not in (None, FORMAT):
        raise ConfigError(
            f"runtime.outputs={root}: holds outputs of format {number} and this version reads format {FORMAT}; choose "
            "another folder with runtime.outputs=FOLDER"
        )
    if number is None and create:
        root.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps({"format": FORMAT}))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def unfinished(final: Path) -> Path:
    """The folder of claims and partials of the artifact that will be at `final`."""
    return final.parent / f".{final.name}"


def disk_full(error: BaseException) -> bool:
    """Whether a full disk caused `error`: safetensors and torch raise errors of their own."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or any(words in str(error) for words in ("No space left on device", "PytorchStreamWriter failed"))


@dataclass
class Store:
    """Artifacts below `root`. `heartbeat` is the interval in seconds at which builders show that they live."""

    root: Path
    heartbeat: float = 10.0
    _watches: dict[str, ClaimWatch] = field(default_factory=dict, init=False, repr=False)
    _verified: set[str] = field(default_factory=set, init=False, repr=False)
    """Keys of the models whose hashes this process has checked."""
    _artifacts: dict[str, Artifact] = field(default_factory=dict, init=False, repr=False)

    def path(self, node: Node) -> Path:
        path = self.root / "artifacts" / node.stage.name / node.key
        return (node.stage.locate() or path) if node.stage.located else path

    def has(self, node: Node) -> bool:
        if node.stage.located:
            return self.path(node).exists()
        return (self.path(node) / MANIFEST).exists()

    def artifact(self, node: Node, weights: bool = False) -> Artifact:
        """The finished artifact of `node`, its files checked against the sizes in the manifest. If `weights` of a model
        will be read, their hashes are checked too, once a process, and those of the models below it."""
        path = self.path(node)
        weights = weights and node.stage.model and node.key not in self._verified
        if not node.stage.located:
            problems = list(self.damage(path, hashes=weights))
            if problems:
                raise DataError(
                    f"{node.label} is damaged: {'; '.join(problems)}. It is not used. "
                    f"Look with `synthdiv doctor`, remove {path} and run the same command again."
                )
        if weights:
            for inner in node.inputs.values():
                if inner.stage.model:
                    self.artifact(inner, weights)
            self._verified.add(node.key)
        return self._trusted(node)

    def inputs(self, node: Node) -> dict[str, Artifact]:
        """The artifacts that the build of `node` takes, by name."""
        return {name: self.artifact(item, weights=True) for name, item in node.inputs.items()}

    def _trusted(self, node: Node) -> Artifact:
        """The artifact without a look at its files; each of its ancestry once, however many builds and paths lead to
        it."""
        made = self._artifacts.get(node.key)
        if made is None:
            inputs = dict(zip(node.inputs, map(self._trusted, node.inputs.values()), strict=True))  # one frame a level
            made = self._artifacts[node.key] = Artifact(node.stage, node.key, self.path(node), inputs)
        return made

    def damage(self, path: Path, hashes: bool) -> Iterator[str]:
        """What is wrong with the files of a finished artifact, a phrase each. Links and pipes are damage: they are not
        followed."""
        manifest, real = path / MANIFEST, os.path.realpath(path)
        if path.is_symlink() or (manifest.exists() and not regular(manifest)):
            yield f"{path if path.is_symlink() else MANIFEST} is no regular file or folder"
            return
        try:
            files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield f"{MANIFEST} cannot be read ({type(error).__name__})"
            return
        for name, facts in files.items():
            file = path / name
            if not os.path.lexists(file):
                yield f"{name} is missing"
            elif not regular(file) or os.path.realpath(file) != os.path.join(real, name):
                yield f"{name} is no regular file of this folder"
            elif file.stat().st_size != facts["bytes"]:
                yield f"{name} has {file.stat().st_size} bytes, not {facts['bytes']}"
            elif hashes and file_digest(file) != facts["sha256"]:
                yield f"{name} has another SHA-256 than its manifest says"

    def set_aside(self, node: Node) -> Path:
        """Move a finished artifact to `<root>/replaced/`, on purpose: it is built anew, and nothing is overwritten."""
        folder = self.root / "replaced" / node.stage.name
        folder.mkdir(parents=True, exist_ok=True)
        target = next(path for count in itertools.count(1) if not (path := folder / f"{node.key}-{count}").exists())
        os.rename(self.path(node), target)
        return target

    def claimed(self, node: Node) -> Claim | None:
        """The claim of another process that may be building `node`, as far as this object has watched it."""
        claim = current(unfinished(self.path(node)))
        return claim if claim and self._may_live(node, claim) else None

    def _may_live(self, node: Node, claim: Claim) -> bool:
        if claim.gone():
            return False
        watch = self._watches.get(node.key)
        if watch is None or watch.claim != claim:
            watch = self._watches[node.key] = ClaimWatch(unfinished(self.path(node)), claim, self.heartbeat)
        return watch.silence() <= watch.longest

    def obtain(self, node: Node, run: Run, started: Callable[[], object] = lambda: None) -> tuple[Artifact, bool]:
        """The artifact of `node`, and whether this call built it. Waits while another process builds it."""
        if node.stage.located:
            node.stage.fetch()
            self._artifacts.clear()  # it may lie elsewhere now
            return self.artifact(node), False
        folder, announced = unfinished(self.path(node)), None
        while not self.has(node):
            claim = current(folder)
            if claim and self._may_live(node, claim):
                if claim != announced:
                    run.log(f"{node.label} is being built by process {claim.pid} on {claim.host}; waiting")
                    announced = claim
                run.boundary()
                time.sleep(min(0.2, self.heartbeat))
                continue
            taken = take(folder, claim, self.heartbeat)  # after the claim that was judged, not after one made since
            if taken is None:
                time.sleep(0.05)  # another process was first
                continue
            if self.has(node):  # committed and cleared between the look and the claim
                shutil.rmtree(folder, ignore_errors=True)
                break
            started()
            try:
                self._build(node, taken, run)
                return self.artifact(node), True
            except Superseded as note:
                run.log(str(note))
        return self.artifact(node), False

    def _build(self, node: Node, claim: Claim, run: Run) -> None:
        folder = unfinished(self.path(node))
        partial = folder / f"{claim.token}.partial"
        begun, sessions = time.monotonic(), list[dict[str, Any]]()
        try:
            partial.mkdir()
            with Heartbeat(partial, self.heartbeat):  # over the copying and the hashing too: both can take long
                with readable_by_owner(node.confidential):
                    sessions = self._inherit(node, partial)
                self._record(partial, [*sessions, session(run, 0.0) | {"finished": None, "seconds": None}])  # if killed
                inputs = self.inputs(node)
                run.begin(partial)
                with readable_by_owner(node.confidential):
                    summary = node.stage.build(inputs, partial, run)
                run.end()
                self._manifest(node, partial, summary, [*sessions, session(run, time.monotonic() - begun)])
            (partial / "heartbeat").unlink(missing_ok=True)
            if current(folder) != claim:
                raise Superseded(node.label)
            os.rename(partial, self.path(node))
        except BaseException as error:
            self._record(partial, [*sessions, session(run, time.monotonic() - begun)])
            if current(folder) != claim:
                shutil.rmtree(partial, ignore_errors=True)
                raise Superseded(f"{node.label} was taken over by another process; this copy is discarded") from error
            (folder / f"claim.{claim.number}").unlink(missing_ok=True)  # released: this process may live on
            if disk_full(error):
                raise SynthdivError(
                    f"no space left on the disk of {self.root} while building {node.label}. The partial work is kept "
                    f"in {partial}. Free some space and run the same command again: it continues from there."
                ) from error
            raise
        shutil.rmtree(folder, ignore_errors=True)  # what dead builders left; one that wakes up finds its claim lost

    def _inherit(self, node: Node, partial: Path) -> list[dict[str, Any]]:
        """Copy what the dead builder that came furthest left for a stage to continue; return the sessions behind it."""
        olds = [path for path in partial.parent.glob("*.partial") if path != partial and not path.is_symlink()]
        if not olds:
            return []
        kept = {
            old: [file for name in node.stage.kept for file in old.glob(name) if regular_tree(file)] for old in olds
        }
        old = max(olds, key=lambda path: reach(kept[path]))
        for source in kept[old]:
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, partial / source.name)
        try:
            return json.loads((old / "sessions.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []

    def _record(self, partial: Path, sessions: list[dict[str, Any]]) -> None:
        with contextlib.suppress(OSError):  # a full disk or a discarded directory: the caller raises the cause
            (partial / "sessions.json").write_text(json.dumps(sessions), encoding="utf-8")

    def _manifest(self, node: Node, partial: Path, summary: dict[str, Any], sessions: list[dict[str, Any]]) -> None:
        (partial / "sessions.json").unlink(missing_ok=True)
        files = {
            str(file.relative_to(partial)): {"bytes": file.stat().st_size, "sha256": file_digest(file)}
            for file in sorted(partial.rglob("*"))
            if regular(file) and file.name != "heartbeat"
        }
        manifest = {
            "format": FORMAT,
            "stage": node.stage.name,
            "kind": node.stage.kind,
            "version": node.stage.version,
            "key": node.key,
            "inputs": {name: {"stage": item.stage.name, "key": item.key} for name, item in node.inputs.items()},
            "model": model.key if (model := node.work_model) else "",
            "units": summary.get(node.stage.unit, 1),
            "confidential": node.confidential,
            "fields": canonical_fields(node.stage),
            "summary": summary,
            "files": files,
            "sessions": sessions,
        }
        write_whole(partial / MANIFEST, json.dumps(manifest, indent=1))

    def partials(self) -> dict[Path, Claim | None]:
        """Unfinished work, and the claim of a process that may be working on it."""
        claims = {path: current(path.parent) for path in sorted((self.root / "artifacts").glob("*/.*/*.partial"))}
        return {path: claim if claim and not claim.gone() else None for path, claim in claims.items()}

    def finished(self) -> list[Path]:
        return sorted(path.parent for path in (self.root / "artifacts").glob(f"*/*/{MANIFEST}"))
