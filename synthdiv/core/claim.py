"""Which process builds an artifact. An unfinished artifact has a folder, with the partial directory of each builder and
with numbered claims, created once and never changed; the highest counts.

Creating the next number is the takeover: `os.link` is exclusive and carries the whole content, so two takers cannot
both win, and nothing is ever replaced. Clocks of two hosts are never compared; a heartbeat is a counter.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@cache
def boot_id() -> str:
    """This boot of this host: process ids mean nothing across boots."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else f"{socket.gethostname()}-unknown"


def process_start(pid: int) -> float | None:
    """When process `pid` started, or None where there is no such process. A zombie is dead."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():  # in ticks since boot: a step of the wall clock does not move it
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else float(fields[19])
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 2)
    except psutil.NoSuchProcess:
        return None


@dataclass(frozen=True)
class Claim:
    """One builder: its token names its partial directory."""

    number: int
    token: str
    host: str
    boot: str
    pid: int
    started: float | None
    slurm_job: str = ""
    slurm_restart: str = ""
    interval: float = 0.0

    @classmethod
    def of_this_process(cls, number: int, interval: float) -> Claim:
        job, restart = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_RESTART_COUNT", "0")
        host, pid = socket.gethostname(), os.getpid()
        return cls(number, secrets.token_hex(8), host, boot_id(), pid, process_start(pid), job, restart, interval)

    @property
    def here(self) -> bool:
        """Whether its builder is a process of this machine."""
        return self.host == socket.gethostname()

    def gone(self) -> bool:
        """Whether its builder is certainly dead: judged only from facts of this host or of the same Slurm job."""
        if not self.token:
            return True  # a claim that cannot be read: its writer died before the disk had it
        same_job = bool(self.slurm_job) and self.slurm_job == os.environ.get("SLURM_JOB_ID", "")
        if same_job and self.slurm_restart != os.environ.get("SLURM_RESTART_COUNT", "0"):
            return True
        return self.here and (self.boot != boot_id() or process_start(self.pid) != self.started)


def current(folder: Path) -> Claim | None:
    """The claim that counts in the folder of an unfinished artifact, or None."""
    number = max((int(path.suffix[1:]) for path in folder.glob("claim.*") if path.suffix[1:].isdigit()), default=None)
    if number is None:
        return None
    try:
        fields: dict[str, Any] = json.loads((folder / f"claim.{number}").read_text(encoding="utf-8"))
        return Claim(number=number, **fields)
    except FileNotFoundError:
        return None  # released, or committed and cleared, between the listing and the reading
    except (ValueError, TypeError):
        return Claim(number, "", "", "", 0, None)


def take(folder: Path, after: Claim | None, interval: float = 0.0) -> Claim | None:
    """Try to become the builder that follows `after`, with a heartbeat of `interval` seconds; None where another
    process was first, or has finished and removed the folder."""
    claim = Claim.of_this_process(after.number + 1 if after else 0, interval)
    fields = {name: value for name, value in vars(claim).items() if name != "number"}
    draft = folder / f"{claim.token}.draft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as handle:
            json.dump(fields, handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.link(draft, folder / f"claim.{claim.number}")
    except (FileExistsError, FileNotFoundError):
        return None
    finally:
        draft.unlink(missing_ok=True)
    return claim


class Heartbeat:
    """Raises a counter in the builder's own partial directory, from a thread, until it is stopped."""

    def __init__(self, partial: Path, interval: float):
        self.path, self.interval = partial / "heartbeat", interval
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self.thread.start()
        return self

    def _beat(self) -> None:
        counter = 0
        while not self.stopped.is_set():
            counter += 1
            with contextlib.suppress(OSError):  # a full disk or a discarded directory is the builder's to report
                self.path.write_text(str(counter), encoding="utf-8")
            self.stopped.wait(self.interval)

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()


class ClaimWatch:
    """Watches the counter of another builder. Silence is measured on our clock, from the first look on."""

    def __init__(self, folder: Path, claim: Claim, interval: float):
        self.claim = claim
        self.path = folder / f"{claim.token}.partial" / "heartbeat"
        self.longest = 5 * max(claim.interval, interval)  # seconds of silence; the slower of the two intervals
        self.counter, self.changed = "", time.monotonic()

    def silence(self) -> float:
        """Look again: the seconds since the counter changed."""
        try:
            counter = self.path.read_text(encoding="utf-8")
        except OSError:
            counter = ""
        if counter != self.counter:
            self.counter, self.changed = counter, time.monotonic()
        return time.monotonic() - self.changed
