"""Slurm by its commands: limits of the cluster, submitting, the queue, how a job ended, cancelling."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from getpass import getuser

from synthdiv.core.events import Event
from synthdiv.core.types import ConfigError
from synthdiv.engine.failure import LOST

# the states in which a job ends, and reasons of waiting that pass
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED")
INTERVAL = 30.0  # seconds between two questions about jobs that nobody watches
UNKNOWN = "Invalid job id"  # what Slurm says of a job that has ended and is forgotten
TEMPORARY = ["None", "Priority", "Resources", "Dependency", "BeginTime", "JobArrayTaskLimit", "Prolog", "Cleaning"]


def output_of(*words: str) -> str:
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
    needed = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {
        name: value for name, value in os.environ.items() if name in needed or not name.startswith(("SLURM", "SRUN_"))
    }


def largest_array() -> int:
    """How many elements an array may have. Raises ConfigError where Slurm is missing or does not answer."""
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", output_of("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(size.group(1)) - 1) if size else 1


def room(account: str | None) -> int:
    """How many more jobs (elements of arrays) may be queued, by the limits of the cluster and of this user."""
    limits, config = [10_000], output_of("scontrol", "show", "config")
    if count := re.search(r"^MaxJobCount\s*=\s*(\d+)", config, re.MULTILINE):
        limits.append(int(count.group(1)) - len(output_of("squeue", "--noheader", "--array", "--format=%i").split()))
    filters = [f"user={getuser()}"] + ([f"account={account}"] if account else [])
    # the accounting may hold several clusters
    if cluster := re.search(r"^ClusterName\s*=\s*(\S+)", config, re.MULTILINE):
        filters.append(f"cluster={cluster.group(1)}")
    try:
        maxima = output_of("sacctmgr", "--noheader", "--parsable2", "show", "assoc", *filters, "format=MaxSubmitJobs")
        queued_jobs = len(output_of("squeue", "--noheader", "--array", f"--user={getuser()}", "--format=%i").split())
        limits += [int(word) - queued_jobs for word in maxima.split() if word.isdigit()]
    except ConfigError:
        pass  # a cluster without accounting has no such limits
    return max(0, min(limits))


def submit(script: str, elements: int, after: Iterable[str]) -> str:
    """Submit an array of `elements` that starts when the jobs `after` have ended, however they end. Returns its id."""
    words = ["sbatch", "--parsable", f"--array=0-{elements - 1}"]
    waits = ":".join(sorted(after))
    words += [f"--dependency=afterany:{waits}"] if waits else []
    return output_of(*words, script).split(";")[0].strip()


def queued(ids: Iterable[str]) -> dict[str, str]:
    """The elements (`12_3`) of the arrays that wait or run, and the reason why each waits (`None`: it runs)."""
    arrays = sorted({job.split("_")[0] for job in ids})
    reasons: dict[str, str] = {}
    for start in range(0, len(arrays), 500):
        jobs = f"--jobs={','.join(arrays[start : start + 500])}"
        done = run("squeue", "--noheader", "--array", "--format=%i %T %r", jobs)
        if done.returncode and UNKNOWN not in done.stderr:  # the whole array has ended and is forgotten
            raise ConfigError(f"squeue: {done.stderr.strip()}")
        rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
        reasons |= {row[0]: row[2] for row in rows if len(row) == 3 and row[1] not in ENDS}
    return reasons


@dataclass(frozen=True)
class JobState:
    """What Slurm says of a job. `name` is as in `ENDS`, empty where neither the controller, which forgets, nor the
    accounting, which may be missing, knows the job."""

    name: str = ""
    exit_code: str = ""
    host: str = ""
    """Its host; empty where it had several or none."""
    ended: bool = True
    forgotten: bool = False
    """Whether only the accounting knows it: its row of a job that crashed with the controller is never closed."""

    def note(self, job: str, log: str) -> str:
        """What became of a job that has ended, as a clause."""
        outcome = "has ended" if self.ended else "is unknown to the controller and makes no progress, in the accounting"
        return f"its job {job} of Slurm {outcome}: {self}; its log is {log}"

    def __str__(self) -> str:
        where = f" on {self.host}" if self.host else ""
        return f"{self.name or 'no state known'}{', exit code ' if self.exit_code else ''}{self.exit_code}{where}"


def state(job: str) -> JobState:
    """The state of an element that is not in the queue. `squeue` alone is no evidence: it may answer nothing while jobs
    run. Raises ConfigError where the controller does not answer."""
    done, forgotten = run("scontrol", "show", "job", "--oneliner", job), False
    if match := re.search(r"\bJobState=(\S+).*?\bExitCode=(\S+)", done.stdout):
        hosts = re.search(r"\bBatchHost=(\S+)", done.stdout) or re.search(r"\sNodeList=(\S+)", done.stdout)
        words = [match.group(1), match.group(2), hosts.group(1) if hosts else ""]
    elif done.returncode and UNKNOWN not in done.stderr:
        raise ConfigError(f"scontrol: {done.stderr.strip()}")
    else:
        forgotten = True
        arguments = ("--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State,ExitCode,NodeList")
        try:
            words = (output_of("sacct", *arguments).strip().splitlines() or [""])[-1].split("|")
        except ConfigError:
            words = []
    name, exit_code, host = (*words, "", "", "")[:3]
    host = host if re.fullmatch(r"[A-Za-z0-9._-]+", host) and not host.startswith("None") else ""
    name = name.split(" ")[0]
    return JobState(name, exit_code, host, not name or name in ENDS, forgotten)


def job_of(event: Event | None) -> str:
    """The job of Slurm that builds a node, or is to build it: its log is named after it. Empty where there is none."""
    if not event or not event.log or event.state not in ("queued", "running"):
        return ""
    name = event.log.rpartition("/")[2].removesuffix(".log")
    return name if re.fullmatch(r"\d+_\d+", name) else ""


@dataclass
class JobWatch:
    """What Slurm says of the jobs of a launch that returned: asked every `INTERVAL` seconds."""

    ended: dict[str, JobState] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    """Jobs in the queue, with the reason why each waits."""
    last_query: float = -math.inf

    def check(self, events: Mapping[str, Event]) -> dict[str, Event]:
        """Nodes whose job has ended although no event says so, as failed; and those whose job waits, with the reason
        that Slurm gives as note. Nothing where Slurm is not on this machine or does not answer."""
        jobs = {key: job for key, event in events.items() if (job := job_of(event))} if shutil.which("squeue") else {}
        if jobs and time.monotonic() - self.last_query > INTERVAL:
            self.last_query = time.monotonic()
            try:
                self.waiting = queued(jobs.values())
                for job in {*jobs.values()} - {*self.waiting} - {*self.ended}:
                    if (known := state(job)).ended:
                        self.ended[job] = known
            except ConfigError:
                return {}
        result = {}
        for key, job in jobs.items():
            event = events[key]
            if job in self.ended:
                note = self.ended[job].note(job, event.log)
                result[key] = replace(event, state="failed", note=note, failure=LOST)
            elif event.state == "queued" and self.waiting.get(job, "None") != "None":
                result[key] = replace(event, note=self.waiting[job])
        return result


def cancel(ids: Iterable[str]) -> None:
    """End these jobs; Slurm asks those that run to stop first. A job that has ended already is no error."""
    jobs = sorted(ids)
    for start in range(0, len(jobs), 500):
        run("scancel", *jobs[start : start + 500])
