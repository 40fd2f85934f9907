"""What the sweep engine takes for granted about Slurm, seen on a real one (22.05). Comments say what was measured.

Signals, with KillWait=10, on `scancel`, on `scontrol requeue` and at the time limit alike: SIGCONT and SIGTERM to the
processes of every step and to the batch script with its children, within 0.1 s; SIGKILL 9.6 s later. A bash that waits
for a foreground command dies of the SIGTERM at once and its steps live on until the SIGKILL; under `exec srun` there is
no such bash. A time limit is looked at every 30 s: a job of one minute ended after 60 to 90.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.slurm.conftest import wait_for

pytestmark = pytest.mark.slurm


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_two_nodes_run_one_step(slurm):
    printed = slurm.run("srun", "-N2", "-n2", "--mem=100", "bash", "-c", "echo $SLURMD_NODENAME $SLURM_PROCID")
    assert sorted(printed.splitlines()) == ["n1 0", "n2 1"]


def test_exit_codes_become_states(slurm, submit):
    # FAILED is what the script ends with: `exec srun`, or srun last, passes a step's code on; 137 for a SIGKILLed step.
    codes = {"exec srun bash -c 'exit 7'": "FAILED", "srun false; true": "COMPLETED", "exec srun true": "COMPLETED"}
    jobs = {submit(script): state for script, state in codes.items()}
    for job, state in jobs.items():
        assert slurm.await_state(job, "COMPLETED", "FAILED") == state
    assert slurm.run("sacct", "-X", "-n", "-P", "-o", "exitcode", "-j", next(iter(jobs))) == "7:0"


def test_elements_of_an_array(slurm, submit, tmp_path):
    names = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    shown = ", ".join(f'"{name}": "${name}"' for name in names)
    array = submit(f"cat <<END\n{{{shown}}}\nEND", "--array=1,4%1")
    seen = {}
    for index in (1, 4):
        slurm.await_state(f"{array}_{index}", "COMPLETED")
        seen[index] = json.loads((tmp_path / f"{array}_{index}.out").read_text())
    for index, variables in seen.items():
        assert [variables[name] for name in names[1:]] == [array, str(index), "2"]
    assert seen[4]["SLURM_JOB_ID"] == array  # the last element has the array's id, the others ids of their own
    assert seen[1]["SLURM_JOB_ID"] != array


def test_afterany_waits_for_an_element_however_it_ends(slurm, submit):
    array = submit("(( SLURM_ARRAY_TASK_ID == 1 )) && exit 3; sleep 100", "--array=1-3%1")
    after_failed = submit("true", f"--dependency=afterany:{array}_1")
    after_cancelled = submit("true", f"--dependency=afterany:{array}_3")
    after_running = submit("true", f"--dependency=afterany:{array}_2")
    slurm.await_state(after_failed, "COMPLETED")
    slurm.await_state(f"{array}_1", "FAILED")  # its row may come later than that of the job that waited for it
    wait_for("second element runs", lambda: "R" in slurm.run("squeue", "-h", "-j", f"{array}_2", "-o", "%t"))
    slurm.run("scancel", f"{array}_3")  # it is pending: CANCELLED, with a Start of None
    slurm.await_state(f"{array}_3", "CANCELLED")
    slurm.await_state(after_cancelled, "COMPLETED")
    assert slurm.run("squeue", "-h", "-j", after_running, "-o", "%T %r") == "PENDING Dependency"


def test_a_requeued_element_counts_its_restarts(slurm, submit, tmp_path):
    # The id must be spelled like this: $SLURM_JOB_ID of the last element is the array's and would requeue them all.
    array = submit(
        """
        echo "run ${SLURM_RESTART_COUNT:-none}"
        if (( SLURM_ARRAY_TASK_ID == 2 )) && [[ -z ${SLURM_RESTART_COUNT:-} ]]; then
            scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
            sleep 60
        fi
        """,
        "--array=1-2",
    )
    file = tmp_path / f"{array}_2.out"
    wait_for("a second run", lambda: "run 1" in text(file))  # 6 to 8 s after the requeue
    slurm.await_state(f"{array}_2", "COMPLETED")
    slurm.await_state(f"{array}_1", "COMPLETED")
    assert text(tmp_path / f"{array}_1.out") == "run none\n"
    every = slurm.run("sacct", "-X", "-D", "-n", "-P", "-o", "state", "-j", f"{array}_2").splitlines()
    assert every == ["REQUEUED", "COMPLETED"]  # without -D only the last


def test_a_step_is_signalled_before_its_time_limit(slurm, submit, tmp_path):
    # Came 17 s after the start: up to 60 s early, looked for every 30 s. Without `B:` only steps hear it, and a job
    # that runs no srun hears nothing.
    job = submit(
        """
        trap 'echo script heard' USR2
        srun bash -c 'trap "echo step heard; exit 0" USR2; echo ready; while true; do sleep 0.1; done'
        """,
        "--time=1",
        "--signal=USR2@55",
    )
    slurm.await_state(job, "COMPLETED", "TIMEOUT", "FAILED", seconds=150)
    printed = text(next(tmp_path.glob(f"{job}_*.out")))
    assert "step heard" in printed
    assert "script heard" not in printed
    assert slurm.states(job) == {job: "COMPLETED"}


@pytest.mark.parametrize("jobs", [False, True], ids=["daemon", "machine"])
def test_the_job_of_a_dead_node_is_requeued(slurm, submit, tmp_path, jobs):
    # DOWN and requeued after 27 s (NODE_FAIL in sacct -D), started on the other node after 35 s. Where only the daemon
    # died, the step of the first run was still alive then: two runs at once, until the daemon was back.
    job = submit("""exec srun bash -c 'echo "run ${SLURM_RESTART_COUNT:-0} $SLURMD_NODENAME"; sleep 100'""")

    def where(run: int) -> str | None:
        lines = (line.split() for path in tmp_path.glob(f"{job}_*.out") for line in text(path).splitlines())
        return next((words[2] for words in lines if words[:2] == ["run", str(run)]), None)

    node = wait_for("the first run", lambda: where(0))
    slurm.kill_daemon(node, jobs=jobs)
    try:
        wait_for(f"{node} down", lambda: slurm.node_state(node).startswith("down"), 120)
        other = wait_for("a second run", lambda: where(1), 120)
    finally:
        slurm.start_daemon(node)
    assert other != node
    assert slurm.run("sacct", "-X", "-D", "-n", "-P", "-o", "state", "-j", job).splitlines()[0] == "NODE_FAIL"
    assert slurm.node_state(node) in ("idle", "mixed")  # ReturnToService: no hand is needed
