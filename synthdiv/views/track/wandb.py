"""Weights & Biases behind the five verbs: online where a key is found, else an offline run to be synced later."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.types import ConfigError, SynthdivError

# Only what a caller hands over is recorded: no console, no command line, no package list, no git remote.
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
    """Runs of `project` (of `entity`, null: the account's own); their files lie in `<folder>/wandb/`. With `resume` a
    run that is there already goes on."""

    project: str
    entity: str | None
    folder: Path
    resume: bool = False
    _run: Any = field(default=None, init=False)

    def begin(self, run_id: str, name: str, group: str, tags: Sequence[str], config: Mapping[str, Any]) -> None:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)  # else W&B takes a temporary folder
        # A table waits here until it is synced; W&B's default is a home directory that another machine may not see.
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
            told = f"W&B: {error}. Set WANDB_MODE=offline to write to {self.folder / 'wandb'} only"
            raise SynthdivError(told) from error
        self._run.define_metric("train/*", step_metric="train/step")

    def curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._run.log({f"train/{name}": value for name, value in row.items() if not math.isnan(value)})

    def summary(self, values: Mapping[str, float]) -> None:
        self._run.summary.update({name: value for name, value in values.items() if not math.isnan(value)})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        columns: list[str | int] = list(rows[0]) if rows else []
        data = [[row[str(column)] for column in columns] for row in rows]
        self._run.log({name: wandb.Table(columns=columns, data=data, allow_mixed_types=True)})

    def finish(self, exit_code: int) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=exit_code)


def mode() -> Any:
    """What WANDB_MODE or W&B's own settings say, else online where a key is found without asking for one."""
    import wandb

    chosen = wandb.setup(wandb.Settings(silent=True)).settings.mode
    if chosen not in ("online", "run"):
        return chosen
    if wandb.login(prompt=False, verify=False):
        return "online"
    if os.environ.get("WANDB_MODE"):
        raise ConfigError(f"WANDB_MODE={chosen}: no key; run `wandb login`, or unset WANDB_MODE to write offline")
    wandb.setup(wandb.Settings(mode="offline"))  # for the process: else its usage statistics would call the server
    return "offline"
