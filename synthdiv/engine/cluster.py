"""Slurm by its commands: limits of the cluster, submitting, the queue, how a job ended, cancelling."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable

from synthdiv.core.types import ConfigError

# the states in which a job ends, and reasons of waiting that pass
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED")
TEMPORARY = ["None", "Priority", "Resources", "Dependency", "BeginTime", "JobArrayTaskLimit", "Prolog", "Cleaning"]


def ask(*words: str) -> str:
    """What a command of Slurm prints. Raises ConfigError with its message where it fails."""
    done = run(*words)
    if done.returncode:
        raise ConfigError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a session of its own, so that Ctrl-C cannot end it between submitting and printing the id."""
    try:
        return subprocess.run(words, capture_output=True, text=True, env=environment(), start_new_session=True)
    except FileNotFoundError:
        raise ConfigError(
            f"hydra/launcher=slurm: there is no {words[0]} on this machine; launch on a login node of the cluster, or "
            "choose hydra/launcher=local"
        ) from None


def environment() -> dict[str, str]:
    """The environment without the variables of an allocation: a launch from inside a job is not part of that job."""
    if "SLURM_JOB_ID" not in os.environ:
        return dict(os.environ)
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {
        name: value for name, value in os.environ.items() if name in kept or not name.startswith(("SLURM", "SRUN_"))
    }


def largest_array() -> int:
    """How many elements an array may have. Raises ConfigError where Slurm is missing or does not answer."""
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(size.group(1)) - 1) if size else 1


def room(account: str | None) -> int:
    """How many more jobs (elements of arrays) may be queued, by the limits of the cluster and of this user."""
    limits, config = [10_000], ask("scontrol", "show", "config")
    if count := re.search(r"^MaxJobCount\s*=\s*(\d+)", config, re.MULTILINE):
        limits.append(int(count.group(1)) - len(ask("squeue", "--noheader", "--array", "--format=%i").split()))
    filters = [f"user={user()}"] + ([f"account={account}"] if account else [])
    if cluster := re.search(
        r"^ClusterName\s*=\s*(\S+)", config, re.MULTILINE
    ):  # the accounting may hold several clusters
        filters.append(f"cluster={cluster.group(1)}")
    try:
        maxima = ask("sacctmgr", "--noheader", "--parsable2", "show", "assoc", *filters, "format=MaxSubmitJobs")
        queued_jobs = len(ask("squeue", "--noheader", "--array", f"--user={user()}", "--format=%i").split())
        limits += [int(word) - queued_jobs for word in maxima.split() if word.isdigit()]
    except ConfigError:
        pass  # a cluster without accounting has no such limits
    return max(0, min(limits))


def user() -> str:
    import getpass

    return getpass.getuser()


def submit(script: str, elements: int, after: Iterable[str]) -> str:
    """Submit an array of `elements` that starts when the jobs `after` have ended, however they end. Returns its id."""
    words = ["sbatch", "--parsable", f"--array=0-{elements - 1}"]
    waits = ":".join(sorted(after))
    words += [f"--dependency=afterany:{waits}"] if waits else []
    return ask(*words, script).split(";")[0].strip()


def queued(ids: Iterable[str]) -> dict[str, str]:
    """The elements (`12_3`) of the arrays that wait or run, and the reason why each waits (`None`: it runs)."""
    arrays = sorted({job.split("_")[0] for job in ids})
    reasons: dict[str, str] = {}
    for start in range(0, len(arrays), 500):
        jobs = f"--jobs={','.join(arrays[start : start + 500])}"
        done = run("squeue", "--noheader", "--array", "--format=%i %T %r", jobs)
        if done.returncode and "Invalid job id" not in done.stderr:  # the whole array has ended and is forgotten
            raise ConfigError(f"squeue: {done.stderr.strip()}")
        rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
        reasons |= {row[0]: row[2] for row in rows if len(row) == 3 and row[1] not in ENDS}
    return reasons


def state(job: str) -> str:
    """How an element ended, in Slurm's words; empty where neither the controller, which forgets, nor the accounting,
    which may be missing, knows it."""
    try:
        text = ask("scontrol", "show", "job", "--oneliner", job)
    except ConfigError:
        text = ""
    if match := re.search(r"\bJobState=(\S+).*?\bExitCode=(\S+)", text):
        return f"{match.group(1)}, exit code {match.group(2)}"
    try:
        text = ask("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State,ExitCode")
    except ConfigError:
        return ""
    last = text.strip().splitlines()[-1:]
    return last[0].replace("|", ", exit code ") if last else ""


def cancel(ids: Iterable[str]) -> None:
    """End these jobs; Slurm asks those that run to stop first. A job that has ended already is no error."""
    jobs = sorted(ids)
    for start in range(0, len(jobs), 500):
        run("scancel", *jobs[start : start + 500])
