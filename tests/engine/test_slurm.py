"""The slurm engine without a cluster: profiles, scripts, and messages where Slurm's commands fail or are missing."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from synthdiv.core import claim as claims
from synthdiv.core.stage import Node
from synthdiv.core.store import unfinished
from synthdiv.core.types import ConfigError
from synthdiv.engine import cluster
from synthdiv.engine.profile import Profile
from synthdiv.engine.slurm import SILENT, Slurm
from tests.conftest import FILES, write_files
from tests.engine.stages import Act, Given, cell

QUEUE = [*FILES, "mix=human", "sweep=s", "hydra/launcher=slurm", "hydra.launcher.detach=true"]
COMMANDS = {  # as much of Slurm as a launch calls; each call is noted
    "scontrol": 'echo "ClusterName = here"; echo "MaxArraySize = 1001"; echo "MaxJobCount = 100"',
    "squeue": "printf '1_0\\n1_1\\n'",
    "sacctmgr": "echo 40",
    "scancel": "true",
    "sbatch": 'count=$(grep -c "^sbatch" calls); echo "$((100 + count));here"',
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands that answer as Slurm's do; `slurm(name, script)` makes one answer otherwise. Calls are in `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def command(name: str, script: str) -> None:
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>calls\n{script}\n')
        (folder / name).chmod(0o755)

    for name, script in COMMANDS.items():
        command(name, script)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    write_files(tmp_path)
    return command


def calls(folder: Path, name: str) -> list[str]:
    return [line for line in (folder / "calls").read_text().splitlines() if line.split()[0] == name]


def profile(folder: Path, text: str) -> str:
    (folder / "mine.yaml").write_text(text)
    return str(folder / "mine.yaml")


def test_scripts_have_every_placeholder_filled_and_the_options_as_given(typed, tmp_path, slurm):
    path = profile(
        tmp_path,
        "partition: gpu\noptions: {comment: a b, exclusive: true}\n"
        "stages: {train: {time: 12:00:00, mem: 8G}}\nsetup: [module load cuda, set -u]\n",
    )
    assert typed(*QUEUE, f"hydra.launcher.profile={path}", "hydra.launcher.group=4").code == 0
    scripts = {path.stem: path.read_text() for path in (tmp_path / "outputs/sweeps/s/jobs").glob("*/*.sbatch")}
    jobs = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "outputs/sweeps/s/jobs").glob("*/*.json")}
    stages = {row["key"]: row["stage"] for job in jobs.values() for row in job["graph"]}
    assert len(scripts) == len(calls(tmp_path, "sbatch"))
    for number, script in scripts.items():
        assert not re.findall("@[a-z]+@", script)
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
        assert "#SBATCH --partition=gpu\n" in script
        assert "#SBATCH --comment='a b'\n" in script
        assert "#SBATCH --exclusive\n" in script
        assert f"\nmodule load cuda\nset -u\ncd {tmp_path}\n" in script
        assert f"{sys.executable} -m synthdiv.worker" in script
        first = [job for name, job in jobs.items() if name.split("-")[0] == number]
        assert first
        trains = "train" in {stages[key] for job in first for key in job["nodes"]}
        assert trains == ("#SBATCH --time=12:00:00\n" in script) == ("#SBATCH --mem=8G\n" in script)
    assert sorted(key for job in jobs.values() for key in job["nodes"]) == sorted(stages), "each node in one job"
    assert all(len(job["nodes"]) <= 4 for job in jobs.values())


def test_no_more_jobs_are_submitted_than_the_queue_takes(typed, tmp_path, slurm):
    slurm("sacctmgr", "echo 8")  # less two that are queued
    assert typed(*QUEUE, "hydra.launcher.account=me").code == 0
    assert len(list((tmp_path / "outputs/sweeps/s/jobs").glob("*/*.json"))) == 6
    assert "user=" in (asked := calls(tmp_path, "sacctmgr")[0])
    assert "account=me cluster=here" in asked
    slurm("sacctmgr", "echo 3")
    done = typed(*QUEUE[:-1], "sweep=t")
    assert done.code == 2
    assert re.search(r"error: this sweep needs \d jobs one after the other and the cluster lets you queue 1", done.err)


def test_without_slurm_the_message_says_so(typed, tmp_path, monkeypatch):
    write_files(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = typed(*QUEUE)
    assert done.code == 2
    assert (
        "there is no scontrol on this machine; launch on a login node of the cluster, or choose hydra/launcher=local"
        in done.err
    )
    assert not (tmp_path / "outputs/sweeps").exists()


def test_an_error_of_sbatch_is_shown_and_submitted_jobs_are_cancelled(typed, tmp_path, slurm):
    slurm("sbatch", 'if [ -e once ]; then echo "sbatch: error: too poor" >&2; exit 1; fi; touch once; echo 7')
    done = typed(*QUEUE)
    assert done.code == 2
    assert "sbatch: error: too poor" in done.err
    assert calls(tmp_path, "scancel") == ["scancel 7_0 7_1"], "the first array: prompts and student"
    slurm("sbatch", COMMANDS["sbatch"])
    assert typed(*QUEUE).code == 0, "the same command goes on"


@pytest.mark.parametrize("words", ["group=0", "requeues=-1"])
def test_an_impossible_number_is_refused(typed, slurm, words):
    done = typed(*QUEUE, f"hydra.launcher.{words}")
    assert done.code == 2
    assert f"hydra.launcher.{words}" in done.err


@pytest.mark.parametrize(("typed_answer", "wanted"), [("", True), ("y", True), ("N", False), ("no", False)])
def test_cancelling_jobs_is_confirmed_at_a_terminal(monkeypatch, typed_answer, wanted):
    engine = Slurm.__new__(Slurm)
    engine.jobs = {"1_0": []}
    assert engine._confirm_cancel(), "nobody can answer"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda asked: typed_answer)
    assert engine._confirm_cancel() == wanted


ALIVE = "JobId=8 ArrayJobId=7 JobState={} Reason=None Restarts=0 ExitCode=0:15 NodeList={} BatchHost={}"
FORGOTTEN = 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1'


@pytest.mark.parametrize(
    ("scontrol", "sacct", "words", "host", "over"),
    [
        (f'echo "{ALIVE.format("TIMEOUT", "n1", "n1")}"', "", "TIMEOUT, exit code 0:15 on n1", "n1", True),
        (f'echo "{ALIVE.format("RUNNING", "n[1-2]", "n1")}"', "", "RUNNING, exit code 0:15 on n1", "n1", False),
        (f'echo "{ALIVE.format("REQUEUED", "(null)", "")}"', "", "REQUEUED, exit code 0:15", "", False),
        (FORGOTTEN, 'echo "FAILED|3:0|n2"', "FAILED, exit code 3:0 on n2", "n2", True),
        (FORGOTTEN, 'echo "CANCELLED by 0|0:0|None assigned"', "CANCELLED, exit code 0:0", "", True),
        (FORGOTTEN, 'echo "RUNNING|0:0|n[1-2]"', "RUNNING, exit code 0:0", "", False),
        (FORGOTTEN, 'echo "Slurm accounting storage is disabled" >&2; exit 1', "no state known", "", True),
    ],
)  # fmt: skip
def test_the_state_of_a_job_is_the_controllers_or_the_accountings(
    slurm, tmp_path, monkeypatch, scontrol, sacct, words, host, over
):
    monkeypatch.chdir(tmp_path)
    slurm("scontrol", scontrol)
    slurm("sacct", sacct)
    actual = cluster.state("7_0")
    assert (str(actual), actual.host, actual.ended) == (words, host, over)


def watching(tmp_path, monkeypatch) -> Slurm:
    """An engine that watches one job."""
    monkeypatch.chdir(tmp_path)
    engine = Slurm(Given([Node(Act(number=1))]), cell(tmp_path / "out"), Profile(), 8, 0, detach=False)
    engine.ledger.add(engine.records, [])
    engine.jobs = {"7_0": list(engine.nodes.values())}
    return engine


def test_a_queue_that_answers_nothing_while_a_job_runs_ends_no_job(slurm, tmp_path, monkeypatch, caplog):
    """Empty answers are no evidence, and those before an answer that names the job do not count."""
    engine = watching(tmp_path, monkeypatch)
    slurm("squeue", "true")
    slurm("scontrol", f'echo "{ALIVE.format("RUNNING", "n1", "n1")}"')
    assert [engine._ended_jobs() for _ in range(6)] == [{}] * 6
    slurm("scontrol", 'echo "Unable to contact slurm controller" >&2; exit 1')
    assert [engine._ended_jobs() for _ in range(6)] == [{}] * 6
    assert "Unable to contact slurm controller; asking again" in caplog.text
    slurm("squeue", 'echo "slurm_load_jobs error: Socket timed out" >&2; exit 1')
    assert engine._queued() == {"7_0"}
    assert "Socket timed out; asking again" in caplog.text
    slurm("squeue", "true")
    slurm("scontrol", FORGOTTEN)
    engine.missed.clear()
    assert engine._ended_jobs() == {}
    slurm("squeue", 'echo "7_0 RUNNING None"')
    assert engine._ended_jobs() == {}
    slurm("squeue", "true")
    assert engine._ended_jobs() == {}, "the first miss is forgotten"
    assert list(engine._ended_jobs()) == ["7_0"]


def test_a_job_that_only_the_accounting_knows_is_over_once_nothing_of_it_is_built(slurm, tmp_path, monkeypatch):
    """Its row stays RUNNING for ever where the controller lost the job; a heartbeat says that it is alive."""
    engine = watching(tmp_path, monkeypatch)
    (node,) = engine.nodes.values()
    slurm("squeue", "true")
    slurm("scontrol", FORGOTTEN)
    slurm("sacct", 'echo "RUNNING|0:0|n1"')
    folder = unfinished(engine.store.path(node))
    claim = claims.take(folder, None)
    assert claim
    assert [engine._ended_jobs() for _ in range(SILENT + 2)] == [{}] * (SILENT + 2), "this process holds a claim"
    (folder / "claim.0").unlink()
    assert [engine._ended_jobs() for _ in range(SILENT - 1)] == [{}] * (SILENT - 1)
    (state,) = engine._ended_jobs().values()
    engine._settle_ended("7_0", state, {})
    assert engine.frontier.pending() == [node], "it is submitted again"
    assert not engine.bad_hosts, "the host is not at fault"
    assert state.note("7_0", "x.log").startswith(
        "its job 7_0 of Slurm is unknown to the controller and makes no progress"
    )
    slurm("scontrol", f'echo "{ALIVE.format("RUNNING", "n1", "n1")}"')
    engine.jobs = {"7_0": [node]}
    assert [engine._ended_jobs() for _ in range(SILENT + 2)] == [{}] * (SILENT + 2), "the controller knows it"


def test_a_node_whose_job_died_is_tried_on_another_host_and_its_last_words_name_host_and_log(
    slurm, tmp_path, monkeypatch
):
    engine = watching(tmp_path, monkeypatch)
    (node,) = engine.nodes.values()
    for host in ("n1", "n2", "n1"):
        engine.jobs = {"7_0": [node]}
        engine._settle_ended("7_0", cluster.JobState("FAILED", "1:0", host), {})
    assert dict(engine._shape(node)) == {"exclude": "n1,n2"}
    message = engine.failures[node.key].note
    assert "its job 7_0 of Slurm has ended: FAILED, exit code 1:0 on n1; its log is " in message
    assert message.endswith("/logs/7_0.log; given up after 3 attempts")


def test_the_jobs_of_a_detached_launch_are_followed_by_status(typed, tmp_path, slurm):
    """Those that wait have Slurm's reason, and those that died before their worker wrote a line have failed."""
    assert typed(*QUEUE, "hydra.launcher.group=1").code == 0
    slurm("squeue", "echo '101_0 PENDING PartitionConfig'; echo '101_1 RUNNING None'")
    slurm("scontrol", f'echo "{ALIVE.format("FAILED", "n1", "n1")}"')
    status = json.loads(typed("status", "s", "--json").out)
    assert status["waiting"] == {"PartitionConfig": 1}
    (row, *_) = status["failed"]
    assert re.match(r"its job \d+_\d+ of Slurm has ended: FAILED, exit code 0:15 on n1; its log is ", row["reason"])
    out = typed("status", "s").out
    assert "failed" in out
    slurm("squeue", 'echo "Unable to contact slurm controller" >&2; exit 1')
    assert not json.loads(typed("status", "s", "--json").out)["failed"], "no answer is no evidence"


NAMES = [
    "a b",
    "a$(touch pwned)b",
    "a`touch pwned`b",
    "it's",
    'a "b"',
    "a;touch pwned;",
    "100%j",
    "@python@ #",
    "~*?&|<>!",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_folder_name_gets_out_of_its_quotes_in_a_script(slurm, tmp_path, monkeypatch, name):
    """The script is run, with an srun that prints what it was given."""
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    engine = Slurm(Given([Node(Act())]), cell(Path("out")), Profile(options={"comment": name}), 8, 0, detach=True)
    (folder / "calls").touch()
    slurm("srun", 'printf "%s\n" "$PWD" "$SYNTHDIV_LOG" "$@"')
    script = engine._script("0", engine._shape(Node(Act())))
    environment = os.environ | {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, env=environment, check=True)
    jobs = folder / "out/sweeps/s/jobs" / engine.ledger.job
    wanted = [folder, folder / "out/sweeps/s/logs/7_3.log", "--kill-on-bad-exit=1", sys.executable]
    assert done.stdout.splitlines() == [*map(str, wanted), "-m", "synthdiv.worker", f"{jobs}/0-3.json"]
    assert not list(tmp_path.rglob("pwned"))
    options = [shlex.split(line)[1] for line in script.splitlines() if line.startswith("#SBATCH --")]
    assert f"--output={folder}".replace("%", "%%") + "/out/sweeps/s/logs/%A_%a.log" in options


@pytest.mark.parametrize("name", ["$(touch pwned)", "a\nb", "a b", "it's", 'a"b', "-x", "..", "a/b", "%j"])
def test_a_sweep_has_a_name_that_no_shell_changes(typed, slurm, tmp_path, name):
    done = typed(*[word for word in QUEUE if word != "sweep=s"], f"sweep={name!r}")
    assert done.code == 2
    assert "needs a name of up to 100 letters" in done.err or "sweep=" in done.err
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\tb", "a\x7fb"])
def test_folders_that_no_line_of_a_script_can_name_are_refused(slurm, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="bear no control characters or backslashes"):
        Slurm(Given([Node(Act())]), cell(Path(name)), Profile(), 8, 0, detach=True)


def test_an_option_of_sbatch_is_one_line():
    for options in ({"mem\nx": 1}, {"comment": "a\ntouch pwned"}, {"a b": 1}):
        with pytest.raises(ConfigError, match="is no option of sbatch and its value"):
            Profile.of(None, {"options": options})
