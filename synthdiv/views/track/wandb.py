"""The tracker for Weights & Biases: online if a key is configured, otherwise an offline run to be synced later."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.types import ConfigError, SynthdivError

# W&B records only what the caller passes: no console, command line, package list or git remote.
PRIVATE: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


@dataclass
class WandbTracker:
    """Writes runs of one project, one at a time, from `begin` to `finish`. It never prompts and never prints."""

    project: str
    entity: str | None
    """The account or team; None: the default of the account."""
    folder: Path
    """The files of runs are in `<folder>/wandb/`."""
    resume: bool = False
    """Whether `begin` continues a run that exists."""
    _run: Any = field(default=None, init=False)

    def begin(self, run_id: str, name: str, group: str, tags: Sequence[str], config: Mapping[str, Any]) -> None:
        """Open the run `run_id`; `config` has no nested values."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)  # otherwise W&B uses a temporary folder
        # Tables are staged here until they are synced; W&B's default is the home directory, which may not be shared.
        os.environ.setdefault("WANDB_DATA_DIR", str(self.folder.resolve() / "wandb" / "data"))
        try:
            self._run = wandb.init(
                project=self.project,
                entity=self.entity,
                dir=str(self.folder),
                id=run_id,
                name=name,
                group=group,
                tags=list(tags),
                config=dict(config),
                mode=mode(),
                resume="allow" if self.resume else None,
                settings=wandb.Settings(**PRIVATE),
            )
        except wandb.errors.Error as error:
            message = f"W&B: {error}. Set WANDB_MODE=offline to write to {self.folder / 'wandb'} only"
            raise SynthdivError(message) from error
        self._run.define_metric("train/*", step_metric="train/step")

    def curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of the training curve; the column `step` is their x axis, and NaN is omitted."""
        for row in rows:
            self._run.log({f"train/{name}": value for name, value in row.items() if not math.isnan(value)})

    def summary(self, values: Mapping[str, float]) -> None:
        """Set final numbers; NaN, which means undefined, is omitted."""
        self._run.summary.update({name: value for name, value in values.items() if not math.isnan(value)})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add a table of rows that all have the columns of the first."""
        import wandb

        columns: list[str | int] = list(rows[0]) if rows else []
        data = [[row[str(column)] for column in columns] for row in rows]
        self._run.log({name: wandb.Table(columns=columns, data=data, allow_mixed_types=True)})

    def finish(self, exit_code: int) -> None:
        """Close the run, with exit code 0 if all of it was written. Does nothing if no run is open."""
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=exit_code)


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
