"""The tracker for Weights & Biases: online if a key is configured, otherwise an offline run to be synced later."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.types import ConfigError, SynthdivError

# W&B records only what the caller passes: no console, command line, path, host name, list of packages or git remote.
PRIVATE: dict[str, Any] = {
    **dict.fromkeys(("silent", "disable_code", "disable_git", "disable_job_creation"), True),
    **dict.fromkeys(("x_disable_machine_info", "x_disable_meta", "x_disable_stats"), True),
    **dict.fromkeys(("host", "program", "program_relpath"), "synthdiv"),
    **{"console": "off", "x_save_requirements": False},
}


@dataclass
class WandbTracker:
    """Writes runs of one project, one at a time, from `begin` to `finish`. It never prompts and never prints. It
    honours WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE, WANDB_DIR, WANDB_BASE_URL and WANDB_TAGS."""

    project: str | None
    """None: WANDB_PROJECT, else `synthdiv`."""
    entity: str | None
    """The account or team; None: WANDB_ENTITY, else the default of the account."""
    folder: Path
    """The files of runs are in `<folder>/wandb/`, unless WANDB_DIR says otherwise."""
    resume: bool = False
    """Whether `begin` continues a run that exists."""
    _run: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.project = project_name(self.project)
        self.folder = Path(os.environ.get("WANDB_DIR") or self.folder)

    @property
    def library(self) -> Any:
        import wandb

        return wandb

    @property
    def place(self) -> Path:
        """The folder of the open run, named by its id where it is offline."""
        return Path(self._run.dir).parent

    def begin(
        self, run_id: str, name: str, group: str, tags: Sequence[str], config: Mapping[str, Any], kind: str
    ) -> None:
        """Open the run `run_id` of job type `kind`; `config` has no nested values."""
        wandb = self.library
        self.folder.mkdir(parents=True, exist_ok=True)  # otherwise W&B uses a temporary folder
        # Tables are staged here until they are synced; W&B's default is the home directory, which may not be shared.
        os.environ.setdefault("WANDB_DATA_DIR", str(self.folder.resolve() / "wandb" / "data"))
        more = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]
        run: dict[str, Any] = {"id": run_id, "name": name, "group": group, "job_type": kind, "tags": [*tags, *more]}
        run |= {"project": self.project, "entity": self.entity, "dir": str(self.folder), "config": dict(config)}
        try:
            run |= {"mode": mode(), "resume": "allow" if self.resume else None}
            self._run = wandb.init(**run, settings=wandb.Settings(**PRIVATE))
        except wandb.errors.Error as error:
            message = f"W&B: {error}. Set WANDB_MODE=offline to write to {self.folder / 'wandb'} only"
            raise SynthdivError(message) from error
        self._run.define_metric("train/*", step_metric="train/step")

    def curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of the training curve; the column `step` is their x axis, and NaN is omitted."""
        for row in rows:
            self._run.log({f"train/{name}": value for name, value in defined(row).items()})

    def summary(self, values: Mapping[str, float]) -> None:
        """Set final numbers; NaN, which means undefined, is omitted."""
        self._run.summary.update(defined(values))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add a table of rows that all have the columns of the first."""
        columns = list(rows[0])
        data = [[row[column] for column in columns] for row in rows]
        self._run.log({name: self.library.Table(columns=columns, data=data, allow_mixed_types=True)})

    def image(self, name: str, file: Path) -> None:
        self._run.log({name: self.library.Image(str(file))})

    def artifact(self, name: str, kind: str, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """Add files, by their names in the artifact. They are not copied: they stay where they are until a sync."""
        artifact = self.library.Artifact(name, kind, metadata=dict(metadata))
        for path, file in files.items():
            artifact.add_file(str(file.resolve()), path, policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact)

    def finish(self, exit_code: int) -> None:
        """Close the run, with exit code 0 if it shows something that succeeded. Does nothing if no run is open."""
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=exit_code)

    def remove(self, place: str) -> None:
        """Remove an offline run that another one replaces: at a sync, two of one id would overwrite each other."""
        if place.startswith("offline-run-"):
            shutil.rmtree(self.folder / "wandb" / place, ignore_errors=True)


def defined(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not math.isnan(value)}


def project_name(project: str | None) -> str:
    return project or os.environ.get("WANDB_PROJECT") or "synthdiv"


def mode() -> Any:
    """The mode of WANDB_MODE or of W&B's settings; without one, online if a key is configured, else offline."""
    import wandb

    configured = wandb.setup(wandb.Settings(silent=True)).settings.mode
    if configured not in ("online", "run"):
        return configured
    if wandb.login(prompt=False, verify=False):
        return "online"
    if os.environ.get("WANDB_MODE"):
        raise ConfigError(f"WANDB_MODE={configured}: no key; run `wandb login`, or unset WANDB_MODE to write offline")
    wandb.setup(wandb.Settings(mode="offline"))  # for the whole process: otherwise its usage statistics call the server
    return "offline"
