"""The tracker for trackio: the calls of W&B, local files in `<outputs>/trackio`, and a dashboard on this machine."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.types import ConfigError
from synthdiv.views.track.wandb import project_name


@dataclass
class TrackioTracker:
    """Writes runs of one project, one at a time. Files of artifacts are not copied into it; the outputs have them."""

    project: str | None
    folder: Path
    place: Path = field(default=Path(), init=False)
    """The name of the open run, which tells runs apart in trackio."""

    def __post_init__(self) -> None:
        self.project = project_name(self.project)
        os.environ.setdefault("TRACKIO_DIR", str((self.folder / "trackio").resolve()))

    def begin(
        self, run_id: str, name: str, group: str, tags: Sequence[str], config: Mapping[str, Any], kind: str
    ) -> None:
        self.place = Path(f"{name} {run_id[:8]}".replace("/", "-"))
        config = {**config, "key": run_id, "tags": ", ".join(tags), "kind": kind}
        how: dict[str, Any] = {"resume": "allow", "embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        with silent() as trackio:
            trackio.init(self.project, name=self.place.name, group=group, config=config, **how)

    def curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self.summary({f"train/{name}": value for name, value in row.items()}, step=int(row["step"]))

    def summary(self, values: Mapping[str, float], step: int | None = None) -> None:
        with silent() as trackio:
            trackio.log({name: value for name, value in values.items() if not math.isnan(value)}, step=step)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        with silent() as trackio:
            trackio.log({name: trackio.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])})

    def image(self, name: str, file: Path) -> None:
        with silent() as trackio:
            trackio.log({name: trackio.Image(str(file))})

    def artifact(self, name: str, kind: str, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None: ...

    def finish(self, exit_code: int) -> None:
        """Close the run. trackio has no state of runs that failed, so `failed` is a number of the run."""
        with silent() as trackio, contextlib.suppress(RuntimeError):  # none is open
            trackio.log({"failed": exit_code})
            trackio.finish()

    def remove(self, place: str) -> None:
        with silent() as trackio:
            for run in [run for run in trackio.Api().runs(str(self.project)) if run.name == place]:
                run.delete()


@contextlib.contextmanager
def silent() -> Any:
    """trackio, without what it prints. Raises ConfigError where it is not installed."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            import trackio
        except ImportError:
            raise ConfigError(
                "track=trackio: trackio is not installed; run `pip install 'synthdiv[trackio]'`"
            ) from None
        yield trackio
