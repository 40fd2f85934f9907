"""What survives a kill, a full disk and a second process: real processes, real files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.conftest import FILES, TINY, synthdiv, warm, write_files
from tests.warm import Process

LONG = [  # a tiny study that trains and answers for a few seconds
    *TINY,
    "mix=human",
    "train.epochs=60",
    "evaluate.batch_tokens=150",
    "evaluate.respond.subset=12",
    "evaluate.respond.samples=5",
    "runtime.threads=1",
    "runtime.checkpoint_seconds=0.2",
]


def steps(partial: Path) -> int:
    """How far a training got that can be continued."""
    return max((int(path.stem) for path in partial.glob("checkpoints/*.ckpt")), default=0)


def rows(partial: Path) -> int:
    file = partial / "rows.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def kill_when(folder: Path, stage: str, far) -> int:
    """Start the study, kill it with SIGKILL while `stage` is being built, and say how far that had got."""
    with (folder / "log").open("a") as log:
        process = warm().start(LONG, folder, log)
    try:
        until = time.monotonic() + 200
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(FileNotFoundError):  # renamed while we looked
                done = max(map(far, (folder / "outputs" / "artifacts" / stage).glob(".*/*.partial")), default=0)
                if done:
                    return done
            time.sleep(0.01)
        raise AssertionError(f"{stage} was never seen half done:\n{(folder / 'log').read_text()}")
    finally:
        process.kill()
        process.wait(60)


def manifests(folder: Path, stage: str) -> dict[str, dict]:
    actual = (folder / "outputs" / "artifacts" / stage).glob("*/manifest.json")
    return {path.parent.name: json.loads(path.read_text()) for path in actual}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder where the study was killed in training and again in answering, and one where it was left alone."""
    killed, calm = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("calm")
    with (calm / "log").open("w") as log:
        undisturbed = warm().start(LONG, calm, log)
    try:
        got = {
            "train": kill_when(killed, "train", steps),
            "generate": kill_when(killed, "generate", lambda partial: rows(partial) if rows(partial) > 8 else 0),
        }
        last = synthdiv(*LONG, cwd=killed)
    finally:
        assert undisturbed.wait(timeout=300) == 0, (calm / "log").read_text()
    return killed, calm, got, (killed / "log").read_text() + last.stderr


def test_a_killed_study_continues_and_has_every_row_once(folders):
    killed, _, got, log = folders
    (step,) = [int(line.split()[3]) for line in log.splitlines() if line.startswith("continuing at step")]
    assert step > got["train"] > 0
    for stage in ("train", "generate"):
        sessions = [manifest["sessions"] for manifest in manifests(killed, stage).values()]
        (two,) = [each for each in sessions if len(each) > 1]
        assert [each["finished"] is None for each in two] == [True, False], "the killed session is kept in the manifest"
    assert not list((killed / "outputs" / "artifacts").glob("*/.*")), "no partial, no claim is left"
    for path in (killed / "outputs" / "artifacts" / "generate").glob("*/rows.jsonl"):
        names = Counter((row["id"], row["sample"]) for row in map(json.loads, path.read_text().splitlines()))
        assert set(names.values()) == {1}


def test_answers_are_the_same_bytes_as_without_a_kill(folders):
    killed, calm, *_ = folders
    keys = set(manifests(calm, "generate"))
    assert keys == set(manifests(killed, "generate"))
    for key in keys:
        one, other = (each / "outputs/artifacts/generate" / key / "rows.jsonl" for each in (killed, calm))
        assert one.read_bytes() == other.read_bytes()


def test_training_is_the_same_bits_as_without_a_kill(folders):
    killed, calm, *_ = folders
    (key,) = manifests(calm, "train")
    one, other = (each / "outputs/artifacts/train" / key for each in (killed, calm))
    assert (one / "model/model.safetensors").read_bytes() == (other / "model/model.safetensors").read_bytes()
    curves = [pyarrow.parquet.read_table(each / "metrics.parquet").to_pylist() for each in (one, other)]
    assert [point["loss"] for point in curves[0]] == [point["loss"] for point in curves[1]]
    assert [point["step"] for point in curves[0]] == list(range(1, len(curves[0]) + 1))
    scores = [sorted((each / "outputs/artifacts/collapse").glob("*/scores.json")) for each in (killed, calm)]
    assert [path.read_bytes() for path in scores[0]] == [path.read_bytes() for path in scores[1]]


def test_two_processes_on_one_store_build_each_node_once(tmp_path):
    write_files(tmp_path)
    words = [*FILES, "mix=human", "runtime.heartbeat_seconds=2"]
    both = [warm().start([*words, f"sweep={name}"], tmp_path) for name in ("one", "two")]
    logs = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(logs)
    files = tmp_path.glob("outputs/sweeps/*/events/*.jsonl")
    events = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    built = Counter(event["node"] for event in events if event["state"] == "built")
    reused = Counter(event["node"] for event in events if event["state"] == "reused")
    assert set(built.values()) == {1}
    assert built == reused, "what one built the other used"
    assert not list((tmp_path / "outputs" / "artifacts").glob("*/.*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 60 kB, whose size `resize` changes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(disk)]
    if os.name != "posix" or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_sweep_that_does_not_fit_the_disk_is_refused_before_anything_is_built(tmp_path, small_disk):
    write_files(tmp_path)
    done = synthdiv(*FILES, "mix=human", f"runtime.outputs={small_disk}", cwd=tmp_path, code=2)
    assert re.search(r"this sweep needs about \S+ .B and \S+ kB are free there; free some space", done.stderr)
    assert not list(small_disk.glob("artifacts/*"))
    assert not list(small_disk.glob("sweeps/*"))


def begun(disk: Path) -> bool:
    """Whether a node has been built, as the ledger says."""
    return any('"state": "built"' in path.read_text() for path in disk.glob("sweeps/*/events/*.jsonl"))


def fill_when_begun(process: Process, disk: Path) -> None:
    """Take all space once the first node is built, and whatever becomes free until the process ends."""
    until = time.monotonic() + 200
    while time.monotonic() < until and process.poll() is None:
        if begun(disk):
            with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
                while filler.write(bytes(4096)):
                    pass
        time.sleep(0.01)


def test_a_full_disk_is_reported_and_the_same_command_goes_on_when_there_is_space(tmp_path, small_disk):
    write_files(tmp_path)
    resize(small_disk, "64m")
    words = [*FILES, "mix=human", "train.epochs=200", f"runtime.outputs={small_disk}"]  # it trains for seconds
    with (tmp_path / "log").open("w") as log:
        process = warm().start(words, tmp_path, log)
    try:
        fill_when_begun(process, small_disk)
    finally:
        process.kill()
        code = process.wait(60)
    result = (tmp_path / "log").read_text()
    message = [line for line in result.splitlines() if line.startswith(("failed: ", "error: "))]
    assert message, result
    expected = 2 if message[-1].startswith("error: ") else 1  # 2 where not even the ledger could be written
    assert code == expected, result
    assert all("no space left on" in line.lower() for line in message), result
    before = len(list(small_disk.glob("artifacts/*/[!.]*/manifest.json")))
    assert before
    (small_disk / "filler").unlink()
    again = synthdiv(*words, cwd=tmp_path)
    assert f"{before} reused" in again.stderr, "what had been finished is used"
    assert not list(small_disk.glob("artifacts/*/.*"))
