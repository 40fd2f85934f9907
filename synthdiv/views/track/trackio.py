"""The tracker for trackio: the calls of W&B, local files in `<outputs>/trackio`, and a dashboard on this machine."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module, util
from pathlib import Path
from typing import Any

from synthdiv.core.types import ConfigError
from synthdiv.views.track.wandb import WandbTracker, defined, project_name


class TrackioTracker(WandbTracker):
    """Runs are told apart by their names. Files of artifacts are not copied: the outputs have them."""

    def __post_init__(self) -> None:
        self.project = project_name(self.project)
        os.environ.setdefault("TRACKIO_DIR", str((self.folder / "trackio").resolve()))

    @property
    def library(self) -> Any:
        if not util.find_spec("trackio"):
            raise ConfigError("track=trackio: trackio is not installed; run `pip install 'synthdiv[trackio]'`")
        return import_module("trackio")

    @property
    def place(self) -> Path:
        return Path(self._run.name)

    def begin(self, run_id: str, name: str, group: str, tags: Sequence[str], config: Any, kind: str) -> None:
        name, config = f"{name} {run_id[:8]}".replace("/", "-"), {**config, "key": run_id, "kind": kind}
        how = {"group": group, "resume": "allow", "embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        with redirect_stdout(io.StringIO()):
            self._run = self.library.init(self.project, name, config={**config, "tags": ", ".join(tags)}, **how)

    def curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._run.log({f"train/{name}": value for name, value in defined(row).items()}, step=int(row["step"]))

    def summary(self, values: Mapping[str, float]) -> None:
        self._run.log(defined(values))

    def artifact(self, name: str, kind: str, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None: ...

    def finish(self, exit_code: int) -> None:
        """Close the run. trackio has no state of runs that failed, so `failed` is a number of the run."""
        if self._run is not None:
            self._run.log({"failed": exit_code})
            with redirect_stdout(io.StringIO()):
                self.library.finish()
        self._run = None

    def remove(self, place: str) -> None:
        for run in [run for run in self.library.Api().runs(str(self.project)) if run.name == place]:
            run.delete()
