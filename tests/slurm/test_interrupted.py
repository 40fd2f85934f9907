"""A study that Slurm interrupts, in training and in answering at once: it finishes, with the bytes of a calm one.

The first run of each job is slowed down, so that whoever interrupts finds it half done.
"""

from __future__ import annotations

import json
import re
import signal
from collections import Counter

import pytest

from tests.conftest import FILES, ROOT, synthdiv, write_files
from tests.slurm.conftest import wait_for
from tests.slurm.launches import launching, manifest, prepared, slowed

pytestmark = pytest.mark.slurm
STUDY = [
    *FILES,
    "mix=human",
    "train.epochs=30",
    "evaluate.batch_tokens=60",  # a row or two at once
    "evaluate.respond.subset=6",
    "evaluate.respond.samples=3",
    "runtime.checkpoint_seconds=1",
]
PAUSE = 4.0  # seconds after each of 11 batches, and of 44 steps: longer than a job of one minute runs before its signal


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The study that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    write_files(folder)
    synthdiv(*STUDY, "sweep=calm", cwd=folder)
    return folder


@pytest.fixture
def half_done(slurm, calm, tmp_path):
    """Starts a launch of which models and mix are there, and waits until the training of the student and the answers of
    the vanilla one are half done; gives the launch and the two jobs."""
    with launching(slurm, tmp_path / "study", "interrupted") as launch:
        prepared(calm, launch.folder, "prompts", "pretrain", "mix", "tokens")

        def start(*words: str, pause: float = PAUSE) -> tuple:
            launch.start(*STUDY, *words, **slowed(tmp_path / "slow", pause))
            wait_for(
                "a half done training", lambda: list(launch.artifacts.glob("train/.*/*.partial/checkpoints/*.ckpt"))
            )
            wait_for("half done answers", lambda: any(launch.artifacts.glob("generate/.*/*.partial/rows.jsonl")))
            (training,) = launch.nodes("train")
            answers = next(event.node for event in launch.events("running") if event.node in launch.nodes("generate"))
            return launch, launch.job_of(training), launch.job_of(answers)

        yield start


def assert_as_calm(launch, calm) -> None:
    """Every artifact is there, built once, with the same rows, weights and scores."""
    keys = {path.parent.name for path in calm.glob("outputs/artifacts/*/*/manifest.json")}
    assert {path.parent.name for path in launch.artifacts.glob("*/*/manifest.json")} == keys
    for name in ("generate/*/rows.jsonl", "train/*/model/model.safetensors", "collapse/*/scores.json"):
        for path in launch.artifacts.glob(name):
            same = calm / "outputs" / path.relative_to(launch.folder / "outputs")
            assert path.read_bytes() == same.read_bytes(), path
    for path in launch.artifacts.glob("generate/*/rows.jsonl"):
        rows = Counter((row["id"], row["sample"]) for row in map(json.loads, path.read_text().splitlines()))
        assert set(rows.values()) == {1}
    assert set(launch.built().values()) == {1}


def assert_completed(launch) -> None:
    """Every element ended well; else the log of each that did not is in the message."""
    failed = {job: state for job, (state,) in launch.accounts().items() if state != "COMPLETED"}
    logs = [path.read_text() for path in launch.ledger.folder.glob("logs/*.log") if path.stem in failed]
    assert not failed, "\n".join([str(failed), launch.output, *logs])


def assert_continued(launch, node: str, job: str) -> None:
    """The node had two sessions or more, and the later went on where the first was stopped."""
    (path,) = launch.artifacts.glob(f"*/{node}")
    assert len(manifest(path)["sessions"]) > 1
    if path.parent.name == "train":
        log = (launch.ledger.folder / "logs" / f"{job}.log").read_text()
        assert re.search(r"continuing at step (?!1 )\d+ of", log)


def stops(launch) -> set[tuple[str | None, str]]:
    """What was stopped, by its element, and why."""
    return {(launch.job_of(event.node), event.note) for event in launch.events("stopped")}


def restarts(slurm, job: str) -> list[str]:
    """How each run of an element ended."""
    return slurm.run("sacct", "-X", "-D", "-n", "-P", "-o", "state", "-j", job).splitlines()


def test_out_of_time_and_requeued_by_hand(slurm, calm, half_done, tmp_path):
    """The training comes near its time limit, and the answers are queued again by hand."""
    # Slurm looks every 30 s, and tells a job of one minute up to 40 s after its start, 10 at the soonest.
    template = (ROOT / "launchers/slurm/job.sbatch").read_text()
    (tmp_path / "soon.sbatch").write_text(re.sub("--signal=.*", "--signal=USR2@20", template))
    (tmp_path / "mine.yaml").write_text('stages: {train: {time: "0:01:00"}}\n')
    launch, training, answers = half_done(
        f"hydra.launcher.template={tmp_path}/soon.sbatch", f"hydra.launcher.profile={tmp_path}/mine.yaml"
    )
    assert training != answers
    slurm.run("scontrol", "requeue", answers)
    wait_for("both are stopped", lambda: {job for job, _ in stops(launch)} == {training, answers}, 120)
    (tmp_path / "slow/over").touch()  # the answers of the student are in a job of their own
    launch.wait()
    assert_completed(launch)
    assert restarts(slurm, answers) == ["REQUEUED", "COMPLETED"]
    assert restarts(slurm, training)[0] == "REQUEUED"
    log = (launch.ledger.folder / "logs" / f"{training}.log").read_text()
    assert "near its time limit; queued again (1 of 10)" in log
    assert stops(launch) == {(training, "near its time limit"), (answers, "terminated")}, "before Slurm kills"
    for event in launch.events("stopped"):
        assert_continued(launch, event.node, launch.job_of(event.node))
    assert_as_calm(launch, calm)
    assert not list(launch.artifacts.glob("*/.*")), "no partial, no claim"


@pytest.mark.parametrize("machine", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["machine", "daemon"])
def test_a_node_that_dies(slurm, calm, half_done, machine):
    """Where only the daemon dies, the first run goes on beside the second until the daemon is back and ends it; what it
    does meanwhile is in vain."""
    launch, training, _ = half_done()
    node = slurm.run("squeue", "-h", "-j", training, "-o", "%N")
    slurm.kill_daemon(node, jobs=machine)
    try:
        wait_for(f"{node} down", lambda: slurm.node_state(node).startswith("down"), 120)
        launch.wait()
    finally:
        slurm.start_daemon(node)
    assert_completed(launch)
    assert restarts(slurm, training) == ["NODE_FAIL", "COMPLETED"]
    (trained,) = launch.nodes("train")
    assert_continued(launch, trained, training)
    assert_as_calm(launch, calm)
    left = list(launch.artifacts.glob("*/.*"))
    assert not left or not machine
    assert not any("claim" in path.name for path in left)


def test_interrupted_by_hand(slurm, calm, half_done):
    launch, *_ = half_done(pause=2.0)
    launch.process.send_signal(signal.SIGINT)
    output = launch.wait(code=130)
    assert "interrupted; unfinished work is kept, the same command goes on" in output
    assert launch.queued() == []
    assert {state for (state,) in launch.accounts().values()} == {"CANCELLED"}
    partials = list(launch.artifacts.glob("*/.*/*.partial"))
    assert {path.parent.parent.name for path in partials} == {"train", "generate"}
    output = launch.run(*STUDY)
    assert "continuing at step" in "".join(path.read_text() for path in launch.ledger.folder.glob("logs/*.log"))
    assert_as_calm(launch, calm)
    assert " 0 nodes built" in launch.run(*STUDY)
