"""`synthdiv publish` of 100 cells into offline runs of W&B: at most 3 minutes."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CELLS, LIMIT = 100, 180.0  # seconds


def main() -> int:
    import os

    from synthdiv.study.config import Track, TrackerName
    from synthdiv.views.track.publish import publish
    from tests.views.report.conftest import Study

    os.environ["WANDB_MODE"] = "offline"
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder))
        for seed in range(CELLS - 1):  # and the vanilla student
            study.cell("multi", 1.0 + seed, seed)
        seconds = []
        for _ in range(2):
            begun = time.perf_counter()
            publish(Path(folder), "eggs", Track(TrackerName.wandb, "eggs"))
            seconds.append(time.perf_counter() - begun)
    print(f"{CELLS} cells: {seconds[0]:.0f} s (limit {LIMIT:.0f}), again without a change {seconds[1]:.1f} s")
    return int(seconds[0] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
