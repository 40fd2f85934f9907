"""Whole launches on a real Slurm: a sweep of 12 cells, failures, limits, a launch that does not stay, two ranks."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from synthdiv.core.stage import Node
from synthdiv.core.store import require_format
from synthdiv.engine.failure import MEMORY
from synthdiv.engine.job import Job
from synthdiv.engine.profile import Profile
from synthdiv.engine.slurm import Slurm
from synthdiv.mix.mix import Mix
from synthdiv.train.recipe import Lora, Method
from synthdiv.train.train import Train
from tests.conftest import FILES, TINY, command, sources, synthdiv, write_files, write_rows
from tests.engine import stages
from tests.graphs import taking
from tests.models.small import build, node_of, tiny_model, toy_prompts
from tests.slurm.conftest import wait_for
from tests.slurm.launches import Launch, launching, manifest, slowed

pytestmark = pytest.mark.slurm
GRID = [
    "-m",
    "mix=none,single",
    "mix.rotation=0,1,2,3,4,5",  # which matters to neither
    "generators=toy_small",
    *TINY,
    "generators.shard_rows=16",
    "runtime.threads=1",
]
PROFILE = """
partition: main
options: {mem: 900M, comment: "of twelve, # as an option"}
stages:
  pretrain: {time: 0:07:00, mem: 600M, cpus-per-task: 2}
"""
TWO_NODES = {"nodes": 2, "ntasks-per-node": 1, "mem": "1900M"}


@pytest.fixture(scope="module")
def twelve(slurm, tmp_path_factory):
    """A finished sweep of 12 cells, 2 of them different, whose pre-training asks for other resources than the rest."""
    with launching(slurm, tmp_path_factory.mktemp("sweep") / "twelve", "twelve") as launch:
        (launch.folder / "mine.yaml").write_text(PROFILE)
        launch.run(*GRID, "hydra.launcher.profile=mine.yaml")
        yield launch


def jobs(launch) -> dict[str, Job]:
    """The job files of all launches, by the names of their files."""
    return {path.stem: Job.read(path) for path in launch.ledger.folder.glob("jobs/*/*.json")}


def test_twelve_cells_build_each_unique_node_once(twelve):
    cells = twelve.ledger.cells()
    assert len(cells) == 12
    assert len({cell.key for cell in cells}) == 2
    wanted = {key for cell in cells for key in cell.nodes}
    assert twelve.built() == Counter(wanted)
    assert f"12 cells (2 unique), {len(wanted)} nodes built, 0 reused" in twelve.output
    planned = Counter(key for job in jobs(twelve).values() for key in job.nodes)
    assert planned == Counter(wanted)


def test_the_accounting_has_the_state_of_each_job(twelve):
    accounts = twelve.accounts()
    assert len(accounts) == len(jobs(twelve))
    assert {state for (state,) in accounts.values()} == {"COMPLETED"}


def test_each_stage_gets_the_resources_it_asks_for(twelve):
    pretraining = {twelve.job_of(key) for key in twelve.nodes("pretrain")}
    rows = twelve.accounts("timelimit", "reqmem", "reqcpus", "partition")
    for job, (_, *given) in rows.items():
        if job in pretraining:
            assert given == ["00:07:00", "600M", "2", "main"]
        else:
            assert given == ["00:10:00", "900M", "1", "main"]
    assert 0 < len(pretraining) < len(rows)


def test_nodes_that_share_a_model_share_a_job(twelve):
    stage = {node.key: node.stage for node in twelve.ledger.nodes()}
    shards = {node.key: node.inputs["model"] for node in twelve.ledger.nodes() if node.fields.get("split") == "train"}
    trained = 0
    for job in jobs(twelve).values():
        assert len({shards[key] for key in job.nodes if key in shards}) <= 1
        assert sum(stage[key] in ("pretrain", "train") for key in job.nodes) <= 1
        if any(stage[key] == "train" for key in job.nodes):
            trained += 1
            assert Counter(stage[key] for key in job.nodes)["generate"] == 2, "its answers in both decodings"
    assert trained == len(twelve.nodes("train")) == 1


def test_the_same_command_again_submits_nothing(twelve):
    before = len(jobs(twelve))
    assert " 0 nodes built" in twelve.run(*GRID, "hydra.launcher.profile=mine.yaml")
    assert len(jobs(twelve)) == before


@pytest.fixture
def launch(slurm, tmp_path):
    """A launch of a study of files."""
    with launching(slurm, tmp_path / "study", "files") as launch:
        write_files(launch.folder)
        yield launch


def test_a_failed_cell_and_a_cancelled_job_cost_only_what_depends_on_them(slurm, launch, tmp_path):
    rows = write_files(launch.folder)
    for name in ("one", "two", "three"):
        answers = [row | {"source": name, "response": f"{name} says {row['response']}"} for row in rows]
        write_rows(launch.folder / f"{name}.jsonl", answers)
    paths = [
        f"generators.models.{place}.recorded.path={name}.jsonl" for place, name in enumerate(("one", "two", "three"))
    ]
    words = ["-m", *FILES, sources("one", "two", "three"), *paths, "mix=single"]
    words += ['hydra.sweeper.zip=[{mix.source:"one,two,three",train.lr:"1e9,3e-3,4e-3"}]']  # the first diverges
    words = [*words, "hydra.launcher.group=36"]  # what shares nothing but its needs is one job: shards, and mixes
    launch.start(*words, **slowed(tmp_path / "slow", 3))
    wait_for("the ledger", lambda: (launch.ledger.folder / "cells.jsonl").exists())
    cells = {cell.axes["source"]: cell for cell in wait_for("cells", launch.ledger.unique_cells)}
    job = wait_for("a training", lambda: launch.job_of(cells["three"].train), 120)
    slurm.run("scancel", job)
    output = launch.wait(code=1)

    assert f"its job {job} of Slurm has ended: CANCELLED, exit code" in output
    assert output.count("\nfailed: ") == 2
    states = launch.ledger.states()
    assert {states[key].state for key in cells["two"].nodes} == {"built"}
    assert states[cells["three"].train].state == "failed"
    stage = {node.key: node.stage for node in launch.ledger.nodes()}
    refused = [key for key in cells["one"].nodes if states[key].state == "failed"]
    assert [stage[key] for key in refused] == ["train"]
    ended = {name: state for name, (state,) in launch.accounts().items()}
    assert launch.queued() == []
    assert ended[job] == "CANCELLED"
    assert ended[launch.job_of(refused[0])] == "FAILED"
    assert {ended[launch.job_of(key)] for key in cells["two"].nodes if stage[key] in ("train", "collapse")} == {
        "COMPLETED"
    }
    status = json.loads(synthdiv("status", launch.name, "--json", cwd=launch.folder).stdout)
    assert status["cells"] == {"done": 1, "failed": 2}
    assert not status["running"]

    again = launch.run(*words, code=1).split("nodes submitted")[-1]
    assert again.count("\nfailed: ") == 1
    after = launch.ledger.states()
    assert {after[key].state for key in cells["three"].nodes} <= {"built", "reused"}
    assert set(launch.built().values()) == {1}
    assert "CANCELLED" in ended.values()


def test_status_watches_a_detached_launch(slurm, launch):
    """From inside a job, without -m, and with room for four jobs only."""
    words = [*FILES, "mix=none"]
    typed = command(*words, f"sweep={launch.name}", "hydra/launcher=slurm", "hydra.launcher.detach=true")
    slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=4")
    try:
        step = ["srun", "--mem=900M", f"--chdir={launch.folder}", "bash", "-c", f"{shlex.join(typed)} 2>&1"]
        output = slurm.run(*step)
    finally:
        slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1")
    assert launch.queued(), "it did not wait"
    assert f"watch them with `synthdiv status {launch.name} --watch`" in output
    assert len(jobs(launch)) <= 4
    watched = synthdiv("status", launch.name, "--watch", cwd=launch.folder).stdout
    assert watched.splitlines()[0] == f"{launch.name}: 1 cell done"
    assert {state for (state,) in launch.accounts().values()} == {"COMPLETED"}
    assert " 0 nodes built" in launch.run(*words)


def test_status_says_why_the_jobs_of_a_detached_launch_do_not_go_on(slurm, launch, monkeypatch):
    """One dies before its worker begins, and one may not begin yet."""
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    (launch.folder / "mine.yaml").write_text("setup: [exit 3]\nstages: {pretrain: {begin: now+1hour}}\n")
    launch.run(*FILES, "mix=none", "hydra.launcher.detach=true", "hydra.launcher.profile=mine.yaml")
    wait_for("the first job ends", lambda: len(launch.queued()) < len(jobs(launch)))
    status = json.loads(synthdiv("status", launch.name, "--json", cwd=launch.folder).stdout)
    reasons = [row["reason"] for row in status["failed"]]
    assert reasons
    assert all("of Slurm has ended: FAILED, exit code 3:0 on n" in reason for reason in reasons)
    assert "BeginTime" in status["waiting"]


def test_a_folder_that_would_be_a_command_is_only_a_folder(slurm, tmp_path, monkeypatch):
    """Working folder and outputs with all that a shell and sbatch take for something else."""
    for name, value in {**slurm.environment, **stages.knowing(tmp_path / "known")}.items():
        monkeypatch.setenv(name, value)
    with launching(slurm, tmp_path / 'a $(touch pwned) it\'s "%j %%" `touch pwned`; #', "attack") as launch:
        monkeypatch.chdir(launch.folder)
        cell = stages.cell(Path("out $(touch pwned) %A"))
        cell.sweep = launch.name
        node = Node(stages.Act(1))
        engine = Slurm(stages.Given([node]), cell, Profile(options={"mem": "900M"}), group=1, requeues=0, detach=False)
        assert engine.run() == 0
        log = Path(engine.ledger.states()[node.key].log)
    assert "printed by the stage" in log.read_text()
    assert not list(tmp_path.rglob("pwned"))


def test_a_job_that_fails_on_a_host_is_tried_on_the_other_and_then_on_any(slurm, tmp_path, monkeypatch):
    """Each host fails the first job that it gets; with both left out, sbatch accepts no job."""
    for name, value in {**slurm.environment, **stages.knowing(tmp_path / "known")}.items():
        monkeypatch.setenv(name, value)
    with launching(slurm, tmp_path / "hosts", "hosts") as launch:
        monkeypatch.chdir(launch.folder)
        profile = Profile(options={"mem": "900M"}, setup=[f"mkdir {launch.folder}/$SLURMD_NODENAME && exit 3"])
        cell, node = stages.cell(launch.folder / "outputs"), Node(stages.Act(1))
        cell.sweep = launch.name
        engine = Slurm(stages.Given([node]), cell, profile, group=1, requeues=0, detach=False)
        assert engine.run() == 0
        ended = sorted(launch.accounts("nodelist").items(), key=lambda job: int(job[0].split("_")[0]))
    (first, one), (second, other), (third, _) = (states for _, states in ended)
    assert (first, second, third) == ("FAILED", "FAILED", "COMPLETED")
    assert {one, other} == {"n1", "n2"}
    options = [re.findall("--exclude=(.*)", path.read_text()) for path in sorted(engine.folder.glob("*.sbatch"))]
    assert options == [[], [one], []]


def test_a_partition_that_does_not_exist(slurm, launch):
    words = [*FILES, "mix=none"]
    output = launch.run(*words, "hydra.launcher.partition=nowhere", code=2)
    assert "invalid partition specified: nowhere" in output
    assert "Traceback" not in output
    assert launch.queued() == []
    assert not launch.events("running")


@pytest.fixture
def both(slurm, tmp_path, monkeypatch):
    """Runs nodes on two ranks, on two nodes of the cluster; returns the launch and the engine."""
    for name, value in {**slurm.environment, **stages.knowing(tmp_path / "known")}.items():
        monkeypatch.setenv(name, value)
    options = {"nodes": 2, "ntasks-per-node": 1, "mem": "900M"}
    profile = Profile(options=options, setup=["export MASTER_ADDR=127.0.0.1"])  # both nodes are this machine
    with launching(slurm, tmp_path / "ranks", "ranks") as launch:

        def run(*ends: Node, requeues: int) -> tuple[Launch, Slurm]:
            cell = stages.cell(launch.folder / "outputs")
            cell.sweep = launch.name
            require_format(launch.folder / "outputs", create=True)  # as a launch does, for the command below
            engine = Slurm(stages.Given(list(ends)), cell, profile, group=1, requeues=requeues, detach=False)
            assert engine.run() == 1
            return launch, engine

        yield run


def test_two_ranks_on_two_nodes(both):
    """They add what only the other has, and only the first writes; where one fails, the job does."""
    ends = [Node(stages.Both(1)), Node(stages.Both(2, deed="data", guilty=1))]
    launch, engine = both(*ends, requeues=1)
    summed, failed = (launch.job_of(node.key) for node in ends)
    accounts = launch.accounts("nodelist", "alloccpus")
    assert accounts == {summed: ["COMPLETED", "n[1-2]", "2"], failed: ["FAILED", "n[1-2]", "2"]}
    spread = manifest(launch.artifacts / "both" / ends[0].key)
    assert spread["summary"] == {"rows": 0, "sum": 6 * 3.0, "world": 2}
    assert [session["ranks"] for session in spread["sessions"]] == [2]
    assert launch.built() == {ends[0].key: 1}
    assert "row 3 of it is no row" in engine.failures[ends[1].key].note


def test_ranks_that_run_out_of_memory_are_queued_again_with_half_the_rows(both):
    """Of 8 rows a rank takes 4, then 2. One rank of two runs out of memory, the first or the other, or both at once."""
    half, first = Node(stages.Both(1, deed="memory 2", guilty=1)), Node(stages.Both(2, deed="memory 2", guilty=0))
    never, after = Node(stages.Both(3, deed="memory 0", guilty=-1)), taking(stages.Act(4), half)
    launch, engine = both(after, first, never, requeues=0)
    states = {half.key: "built", after.key: "built", first.key: "built", never.key: "failed"}
    assert engine.states == states
    status = json.loads(synthdiv("status", launch.name, "--json", cwd=launch.folder).stdout)
    assert status["cells"] == {"done": 2, "failed": 1}
    for node, rows, restarts in ((half, 2, "1"), (first, 2, "1")):
        spread = manifest(launch.artifacts / "both" / node.key)
        assert spread["summary"] == {"rows": rows, "sum": 6 * 3.0, "world": 2}
        assert launch.ledger.states()[node.key].attempt == int(restarts) + 1
    assert {event.node for event in launch.events("failed")} == {never.key}, "none was taken for failed meanwhile"
    failure = engine.failures[never.key]
    assert failure.failure == MEMORY
    assert failure.note.endswith("CUDA out of memory. Tried to allocate 1.00 GiB; it needs a machine with more memory")
    ended = {job: state for job, (state,) in launch.accounts().items()}
    assert ended.pop(launch.job_of(never.key)) == "FAILED"
    assert set(ended.values()) == {"COMPLETED"}
    assert not list(launch.artifacts.glob("*/.*/claim.*"))


def test_a_training_is_spread_over_two_nodes(slurm, tmp_path, monkeypatch):
    """DeepSpeed's ranks on two nodes train what one process trains."""
    for name, value in {**slurm.environment, "DS_ACCELERATOR": "cpu"}.items():
        monkeypatch.setenv(name, value)
    recipe = Train(method=Method.lora, epochs=1, batch_rows=16, lr=1e-2, lora=Lora(r=2, dropout=0), validation=0.1)
    with launching(slurm, tmp_path / "spread", "spread") as launch:
        root = launch.folder / "outputs"
        prompts, model = build(root, toy_prompts()), build(root, tiny_model())
        mix = build(root, Mix(12, real_share=1.0, train_rows=48, shard_rows=4), prompts)
        trained = build(root, recipe, model, mix, prompts)
        alone = manifest(trained.path.rename(tmp_path / "alone"))
        cell = stages.cell(root, strategy="deepspeed_stage_3", threads=1)
        cell.sweep = launch.name
        profile = Profile(options={"mem": "900M"}, setup=["export MASTER_ADDR=127.0.0.1"], stages={"train": TWO_NODES})
        engine = Slurm(stages.Given([node_of(trained)]), cell, profile, group=1, requeues=0, detach=False)
        assert engine.run() == 0
        accounts = launch.accounts("nodelist")
    spread = manifest(trained.path)
    assert accounts == {launch.job_of(trained.key): ["COMPLETED", "n[1-2]"]}
    assert [session["ranks"] for session in spread["sessions"]] == [2]
    assert spread["summary"]["loss"] == pytest.approx(alone["summary"]["loss"], abs=1e-3)
    assert spread["summary"]["validation"] == pytest.approx(alone["summary"]["validation"], abs=1e-3)
    assert alone["summary"]["validation_before"]["human"] - alone["summary"]["validation"]["human"] > 0.01, "it learns"
    assert spread["files"].keys() == alone["files"].keys()
