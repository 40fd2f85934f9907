"""The demo and the command against their floors; exits 1 where one falls short.

    python benchmarks/demo.py [FOLDER]      FOLDER with a finished demo skips building it

help    `synthdiv --help`, best of five: at most 0.7 s; floor: importing hydra and starting Python
demo    `synthdiv -m experiment=demo`, two local workers, an empty folder: at most 300 s, 3 GiB at the peak of a process
again   the same command on the finished sweep: builds nothing, at most 5 s; ratio to building it
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "synthdiv"]
DEMO = [*COMMAND, "-m", "experiment=demo", "hydra/launcher=local", "hydra.launcher.jobs=2"]


def seconds(command: list[str], folder: Path) -> tuple[float, str]:
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return time.perf_counter() - begun, done.stderr


def main() -> int:
    short = []

    def show(name: str, value: float, most: float, unit: str, remark: str) -> None:
        print(f"{name:8s} {value:8.2f} {unit:4s} (at most {most:g})  {remark}", flush=True)
        if value > most:
            short.append(name)

    with tempfile.TemporaryDirectory() as temporary:
        has_folder = len(sys.argv) > 1
        folder = Path(sys.argv[1]) if has_folder else Path(temporary)
        floor = min(seconds([sys.executable, "-c", "import hydra"], folder)[0] for _ in range(5))
        best = min(seconds([*COMMAND, "--help"], folder)[0] for _ in range(5))
        show("help", best, 0.7, "s", f"{best / floor:.1f} x the floor of {floor:.2f} s")
        built = 0.0
        if not has_folder:
            built, _ = seconds(DEMO, folder)
            show("demo", built, 300, "s", "wall time, two cores")
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            show("memory", peak, 3, "GiB", "peak resident size of the demo")
        again, message = seconds(DEMO, folder)
        if " 0 nodes built" not in message:
            short.append("again built something")
        show("again", again, 5, "s", f"1/{built / again:.0f} of building it" if built else "nothing built")
    if short:
        print("falls short: " + ", ".join(short), file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
