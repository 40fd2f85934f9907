"""A real W&B run without a key, written on a terminal, read back from the file it leaves."""

from __future__ import annotations

import json
import os
import platform
import pty
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("wandb")

ROOT = Path(__file__).resolve().parents[3]
KEY = "a1b2c3d4" * 8
SECRET = "5ec3e7" * 6 + "abcd"
SCRIPT = f"""
import math, sys
from pathlib import Path
PROJECT = "eggs"
from synthdiv.core.ledger import CellRecord
from synthdiv.views.track.cell import Publishable, TrackedFiles, track_cell
from synthdiv.views.track.wandb import WandbTracker
from synthdiv.core.types import Score

axes = {{"mix": "multi", "source": "n/a", "train.lr": "1e-4"}}
cell = CellRecord("{KEY}", "b" * 64, [], axes, {{"train.seed": 3}}, {{}}, {{}}, {{}}, [], None, "")
curve = [{{"step": step, "loss": 1.5 / step, "lr": 1e-4}} for step in (1, 2, 3)]
scores = [
    Score("nll_2", 1.25, 40, 1.0, 1.5, role="headline"),
    Score("truth/excess_nll", math.inf, 16, role="headline"),
    Score("plain/distinct_2", 0.5, 16),
    Score("plain/self_bleu_3@words", math.nan, 0, note="too few words", role="headline"),
]
training = {{"training/undefined": math.nan, "training/zero": 0.0}}
samples = [
    {{"prompt": "p", "response": "r", "temperature": 0.7}},
    {{"prompt": "q", "response": "", "temperature": None}},
]
folder = Path(sys.argv[1])
(folder / "mix.parquet").write_text("rows")
metadata = {{"stage": "mix", "key": "c0ffee", "inputs": {{"prompts": "prompts-1"}}}}
files = [TrackedFiles("mix-c0ffee", "mix", {{"mix.parquet": folder / "mix.parquet"}}, metadata)]
results = Publishable(curve, scores, {{"samples": samples}}, training, {{"commit": "4f1c"}}, files)
for _ in range(2):
    track_cell(WandbTracker(PROJECT, None, folder), ["my_sweep"], cell, results, folder / "published")
"""


class Listener:
    """A socket in place of the W&B server and every proxy; nothing may connect to it."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def called(self) -> bool:
        try:
            self.socket.accept()[0].close()
            return True
        except BlockingIOError:
            return False


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.socket.close()


def on_terminal(script: str, folder: Path, listener: Listener, **more: str) -> tuple[int, str]:
    """Run a script on a terminal, where a prompt would appear; return its exit code and output."""
    env = {name: os.environ[name] for name in ("PATH",)}
    env |= {"HOME": str(folder), "TERM": "xterm", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    env |= {"WANDB_BASE_URL": listener.url, "HTTP_PROXY": listener.url, "HTTPS_PROXY": listener.url} | more
    master, slave = pty.openpty()
    command = [sys.executable, "-c", script, str(folder)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    try:
        code = process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    finally:
        output = drain(master)
    return code, output


def drain(master: int) -> str:
    os.set_blocking(master, False)
    chunks = []
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # nothing left: empty (EAGAIN) or closed (EIO)
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(master)
    return b"".join(chunks).decode()


def records(file: Path) -> Iterator[Any]:
    """The records of a `.wandb` file: LevelDB's log format, blocks of 32 KiB, after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, position, joined = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        joined += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(joined)
            joined = b""
            yield record


def items(updates: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]], str, bool]:
    folder, server = tmp_path_factory.mktemp("wandb"), Listener()
    code, output = on_terminal(SCRIPT, folder, server)
    called = server.called()
    server.socket.close()
    assert code == 0, output
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")  # one, though the cell was tracked twice
    by_kind: dict[str, list[Any]] = {}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        by_kind.setdefault(kind, []).append(getattr(record, kind))
    return folder, by_kind, output, called


def test_nothing_is_prompted_printed_or_sent(written: Any) -> None:
    _, _, output, called = written
    assert output == ""
    assert not called


def test_run_is_named_by_its_cell(written: Any) -> None:
    run = written[1]["run"][0]
    assert (run.run_id, run.project, run.run_group) == (KEY, "eggs", "multi · bbbbbbbb")
    assert (list(run.tags), run.job_type) == (["my_sweep"], "cell")
    assert run.display_name == "multi · seed 3"
    config = items(run.config.update)
    assert config.pop("_wandb") == {}
    assert config == {"mix": "multi", "source": "n/a", "train.lr": "1e-4", "train.seed": 3, "commit": "4f1c"}
    assert [record.exit_code for record in written[1]["exit"]] == [0]


def test_curve_has_its_own_step(written: Any) -> None:
    history = [items(record.item) for record in written[1]["history"]]
    curve = [(row["train/step"], row["train/loss"], row["train/lr"]) for row in history if "train/loss" in row]
    assert curve == [(1, 1.5, 1e-4), (2, 0.75, 1e-4), (3, 0.5, 1e-4)]
    assert [(metric.glob_name, metric.step_metric) for metric in written[1]["metric"]] == [("train/*", "train/step")]


def test_summary_omits_undefined_scores(written: Any) -> None:
    summary: dict[str, Any] = {}
    for record in written[1]["summary"]:
        summary |= items(record.update)
    assert (summary["nll_2"], summary["nll_2/low"], summary["nll_2/high"], summary["nll_2/n"]) == (1.25, 1.0, 1.5, 40)
    assert summary["truth/excess_nll"] == float("inf")
    assert "truth/excess_nll/low" not in summary
    assert not [name for name in summary if "self_bleu" in name]
    assert "plain/distinct_2" not in summary, "it is in the table of all scores alone"
    assert summary["training/zero"] == 0.0
    assert "training/undefined" not in summary


def tables(folder: Path) -> dict[str, Any]:
    files = folder.glob("wandb/offline-run-*/files/media/table/*.json")
    return {file.name.split("_")[0]: json.loads(file.read_text()) for file in files}


def test_samples_and_scores_are_tables(written: Any) -> None:
    actual = tables(written[0])
    assert actual["samples"]["columns"] == ["prompt", "response", "temperature"]
    assert actual["samples"]["data"] == [["p", "r", 0.7], ["q", "", None]]
    assert actual["scores"]["columns"] == ["name", "value", "low", "high", "n", "unit", "role", "note"]
    assert [row[0] for row in actual["scores"]["data"]][:3] == ["nll_2", "truth/excess_nll", "plain/distinct_2"]
    assert actual["scores"]["data"][3][-1] == "too few words"


def test_artifacts_are_not_copied_and_know_what_they_were_made_from(written: Any) -> None:
    folder, by_kind, _, _ = written
    (mix,) = [record for record in by_kind["artifact"] if record.type == "mix"]
    (content,) = mix.manifest.contents
    assert (content.path, Path(content.local_path)) == ("mix.parquet", folder / "mix.parquet")
    metadata = json.loads(mix.metadata)
    assert metadata == {"stage": "mix", "key": "c0ffee", "inputs": {"prompts": "prompts-1"}}


def test_files_for_a_later_sync_are_in_the_folder(written: Any) -> None:
    folder, by_kind, _, _ = written
    staged = [Path(content.local_path) for record in by_kind["artifact"] for content in record.manifest.contents]
    assert staged
    assert all(path.is_file() and path.is_relative_to(folder) for path in staged)


def test_nothing_of_the_machine_is_in_a_run(written: Any) -> None:
    """Neither its name, nor the user's, nor a path of the program, the environment or the working folder."""
    (file,) = written[0].glob("wandb/offline-run-*/*.wandb")
    private = {platform.node(), sys.executable, sys.prefix, str(ROOT), str(Path.home()), str(Path.cwd())}
    data, shown = file.read_bytes(), [name for name in private if len(name) > 1]
    assert len(shown) > 3
    assert not [name for name in shown if re.search(rb"(?<![\w.-])" + re.escape(name.encode()) + rb"(?![\w-])", data)]
    assert {record.host for record in written[1]["run"]} == {"synthdiv"}


def test_a_failed_run_has_its_exit_code_and_can_be_repeated(tmp_path: Path, listener: Listener) -> None:
    broken = SCRIPT.replace('"prompt": "q"', '"another_column": "q"')
    code, _ = on_terminal(broken, tmp_path, listener)
    assert code == 1
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert [record.exit.exit_code for record in records(file) if record.WhichOneof("record_type") == "exit"] == [1]
    assert not list((tmp_path / "published").iterdir())


def test_the_mode_of_the_environment_wins_and_the_key_is_in_no_file(tmp_path: Path, listener: Listener) -> None:
    code, output = on_terminal(SCRIPT, tmp_path, listener, WANDB_MODE="offline", WANDB_API_KEY=SECRET)
    assert (code, output) == (0, "")
    assert not listener.called()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_the_environment_names_project_folder_and_tags(tmp_path: Path, listener: Listener) -> None:
    more = {"WANDB_PROJECT": "other", "WANDB_ENTITY": "team", "WANDB_DIR": str(tmp_path / "runs"), "WANDB_TAGS": "a, b"}
    code, output = on_terminal(SCRIPT.replace('PROJECT = "eggs"', "PROJECT = None"), tmp_path, listener, **more)
    assert (code, output) == (0, "")
    (file,) = tmp_path.glob("runs/wandb/offline-run-*/*.wandb")
    run = next(record.run for record in records(file) if record.WhichOneof("record_type") == "run")
    assert (run.project, run.entity, list(run.tags)) == ("other", "team", ["my_sweep", "a", "b"])


def test_mode_disabled_writes_no_run(tmp_path: Path, listener: Listener) -> None:
    code, output = on_terminal(SCRIPT, tmp_path, listener, WANDB_MODE="disabled")
    assert (code, output) == (0, "")
    assert not list(tmp_path.rglob("*.wandb"))


@pytest.mark.parametrize(
    ("more", "netrc", "mode"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": SECRET}, "", "online"),
        ({}, f"machine 127.0.0.1 login user password {SECRET}\n", "online"),
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": SECRET}, "", "offline"),
        ({"WANDB_MODE": "online"}, "", "ConfigError"),
    ],
)
def test_mode_follows_the_key_without_a_prompt(
    tmp_path: Path, listener: Listener, more: dict[str, str], netrc: str, mode: str
) -> None:
    script = """
import sys
from pathlib import Path
from synthdiv.views.track.wandb import mode
try:
    result = mode()
except Exception as error:
    result = type(error).__name__
(Path(sys.argv[1]) / "mode").write_text(result)
"""
    if netrc:
        (tmp_path / ".netrc").write_text(netrc.replace("127.0.0.1", listener.url.removeprefix("http://")))
        (tmp_path / ".netrc").chmod(0o600)
    code, output = on_terminal(script, tmp_path, listener, **more)
    assert (code, output) == (0, "")
    assert (tmp_path / "mode").read_text() == mode
    assert not listener.called()
