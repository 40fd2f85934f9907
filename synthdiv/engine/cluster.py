"""Asking Slurm, by its own commands: its limits, submitting, what runs, what became of a job, cancelling."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable

from synthdiv.core.types import ConfigError

OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED")
PASSING = ("None", "Priority", "Resources", "Dependency", "BeginTime", "JobArrayTaskLimit", "Prolog", "Cleaning")


def ask(*words: str) -> str:
    """What a command of Slurm prints; its own message where it refuses."""
    done = run(*words)
    if done.returncode:
        raise ConfigError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """In a session of its own: Ctrl-C comes to us, and no job is queued of which we do not know."""
    try:
        return subprocess.run(words, capture_output=True, text=True, env=outside(), start_new_session=True)
    except FileNotFoundError:
        raise ConfigError(
            f"hydra/launcher=slurm: there is no {words[0]} on this machine; launch where Slurm is, or choose "
            "hydra/launcher=local"
        ) from None


def outside() -> dict[str, str]:
    """The environment without what an allocation says of itself: what is launched from inside one is no part of it."""
    if "SLURM_JOB_ID" not in os.environ:
        return dict(os.environ)
    own = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {name: value for name, value in os.environ.items() if name in own or not name.startswith(("SLURM", "SRUN_"))}


def largest_array() -> int:
    """How many elements an array may have. Raises ConfigError where there is no Slurm, or it does not answer."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(found.group(1)) - 1) if found else 1


def room(account: str | None) -> int:
    """How many more jobs (elements of arrays) may be queued: of the cluster, and of this user where that is kept."""
    limits, config = [10_000], ask("scontrol", "show", "config")
    if found := re.search(r"^MaxJobCount\s*=\s*(\d+)", config, re.MULTILINE):
        limits.append(int(found.group(1)) - len(ask("squeue", "--noheader", "--array", "--format=%i").split()))
    which = [f"user={user()}"] + ([f"account={account}"] if account else [])
    if named := re.search(r"^ClusterName\s*=\s*(\S+)", config, re.MULTILINE):  # the accounting may know others
        which.append(f"cluster={named.group(1)}")
    try:
        told = ask("sacctmgr", "--noheader", "--parsable2", "show", "assoc", *which, "format=MaxSubmitJobs")
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


def queued(ids: Iterable[str]) -> dict[str, str]:
    """Those elements (`12_3`) of the arrays that still wait or run, and why they wait (`None`: they run)."""
    arrays = sorted({job.split("_")[0] for job in ids})
    found: dict[str, str] = {}
    for start in range(0, len(arrays), 500):
        which = f"--jobs={','.join(arrays[start : start + 500])}"
        done = run("squeue", "--noheader", "--array", "--format=%i %T %r", which)
        if done.returncode and "Invalid job id" not in done.stderr:  # the whole array is over and forgotten
            raise ConfigError(f"squeue: {done.stderr.strip()}")
        rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
        found |= {row[0]: row[2] for row in rows if len(row) == 3 and row[1] not in OVER}
    return found


def state(job: str) -> str:
    """How an element ended, in Slurm's words: asked of the controller, which forgets; the accounting comes later and
    may be missing, then it is empty."""
    try:
        told = ask("scontrol", "show", "job", "--oneliner", job)
    except ConfigError:
        told = ""
    if found := re.search(r"\bJobState=(\S+).*?\bExitCode=(\S+)", told):
        return f"{found.group(1)}, exit code {found.group(2)}"
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
        run("scancel", *known[start : start + 500])
