"""Asking Slurm, by its own commands: its limits, submitting, what runs, what became of a job, cancelling."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable

from synthdiv.types import ConfigError

ON = ("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED")


def ask(*words: str) -> str:
    """What a command of Slurm prints; its own message where it refuses."""
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError(
            f"hydra/launcher=slurm: there is no {words[0]} on this machine; launch where Slurm is, or choose "
            "hydra/launcher=local"
        ) from None
    if done.returncode:
        raise ConfigError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def largest_array() -> int:
    """How many elements an array may have. Raises ConfigError where there is no Slurm, or it does not answer."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(found.group(1)) - 1) if found else 1


def room() -> int:
    """How many more jobs (elements of arrays) may be queued: of the cluster, and of this user where that is kept."""
    limits = [10_000]
    if found := re.search(r"^MaxJobCount\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE):
        limits.append(int(found.group(1)) - len(ask("squeue", "--noheader", "--array", "--format=%i").split()))
    try:
        told = ask("sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={user()}", "format=MaxSubmitJobs")
        mine = len(ask("squeue", "--noheader", "--array", f"--user={user()}", "--format=%i").split())
        limits += [int(word) - mine for word in told.split() if word.isdigit()]
    except ConfigError:
        pass  # a cluster without accounting has no such limits
    return max(0, min(limits))


def user() -> str:
    import getpass

    return getpass.getuser()


def submit(script: str, elements: int, after: Iterable[str]) -> str:
    """Queue an array of `elements` after the jobs `after` are over, however they end; its id."""
    words = ["sbatch", "--parsable", f"--array=0-{elements - 1}"]
    waits = ":".join(sorted(after))
    words += [f"--dependency=afterany:{waits}"] if waits else []
    return ask(*words, script).split(";")[0].strip()


def queued(ids: Iterable[str]) -> set[str]:
    """Those elements (`12_3`) of the arrays that still wait or run."""
    arrays = sorted({job.split("_")[0] for job in ids})
    found: set[str] = set()
    for start in range(0, len(arrays), 500):
        done = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={','.join(arrays[start : start + 500])}"],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode and "Invalid job id" not in done.stderr:  # the whole array is over and forgotten
            raise ConfigError(f"squeue: {done.stderr.strip()}")
        rows = [line.split() for line in done.stdout.splitlines()]
        found |= {row[0] for row in rows if len(row) > 1 and row[1] in ON}
    return found


def state(job: str) -> str:
    """How an element ended, in Slurm's words; empty where there is no accounting."""
    try:
        told = ask("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State,ExitCode")
    except ConfigError:
        return ""
    last = told.strip().splitlines()[-1:]
    return last[0].replace("|", ", exit code ") if last else ""


def cancel(ids: Iterable[str]) -> None:
    """End these jobs; those that run are asked to stop first. What is over already is no error."""
    known = sorted(ids)
    for start in range(0, len(known), 500):
        subprocess.run(["scancel", *known[start : start + 500]], capture_output=True, env=dict(os.environ))
