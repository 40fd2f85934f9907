"""The store: one builder, whatever happens to the others; presence means complete; damage is named, never used."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from synthdiv.core import store as store_module
from synthdiv.core.claim import current, take
from synthdiv.core.files import readable_by_owner
from synthdiv.core.local_run import LocalRun
from synthdiv.core.provenance import accelerator, cpu_name
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node, Stage
from synthdiv.core.store import Store, require_format, unfinished
from synthdiv.core.types import ConfigError, DataError, Stopped, SynthdivError
from synthdiv.views.doctor import examine
from tests.graphs import Taking, taking

FIELDS_SHOWN = ("requests.confidential",)


@dataclass
class Slow(Stage):
    """Writes a line at a time and says who wrote it."""

    name = "slow"
    kept = ("lines.txt",)
    lines: int = 5
    pause: float = 0.0

    def build(self, inputs, out, run):
        file = out / "lines.txt"
        have = file.read_text().splitlines() if file.exists() else []
        with file.open("a") as handle:
            for number in range(len(have), self.lines):
                handle.write(f"{number}\n")
                handle.flush()
                time.sleep(self.pause)
        (out / "builder.txt").write_text(str(os.getpid()))
        return {"lines": self.lines, "continued_from": len(have)}


@dataclass
class Broken(Stage):
    name = "broken"
    kind: str = "bug"

    def build(self, inputs, out, run):
        (out / "half.txt").write_text("half")
        raise ValueError("a bug") if self.kind == "bug" else OSError(28, "No space left on device")


@dataclass
class Located(Stage):
    """A model that lies elsewhere, once it is on this machine."""

    name = "located"
    located = model = True
    path: str = ""

    def locate(self):
        return Path(self.path) if Path(self.path).exists() else None


@dataclass
class Round(Taking):
    """Takes the round before by two names, as rounds take answers and the prompts that these were given to."""

    name = "round"
    number: int = 0

    def build(self, inputs, out, run):
        return {"confidential": [item.confidential for item in inputs.values()]}


@pytest.mark.timeout(60)
def test_many_paths_through_one_history_are_walked_once(tmp_path):
    """A history of 60 rounds has 2 ** 60 paths to its first node."""
    store, node = Store(tmp_path), taking(Round(number=0))
    for number in range(1, 60):
        node = taking(Round(number=number), node, node)
        store.obtain(node.inputs["input0"], run_of())
    artifact, built = store.obtain(node, run_of())
    assert built
    assert not artifact.confidential
    assert not node.confidential
    assert len(node.ancestry()) == 60


def test_a_long_history_is_walked_for_one_build_and_not_for_each(tmp_path, monkeypatch):
    """300 nodes, of which each takes three: the second node that takes the last of them looks at these alone."""
    store, history = Store(tmp_path), [taking(Round(number=0))]
    for number in range(1, 300):
        history.append(taking(Round(number=number), *history[-3:]))
    for node in history[-3:]:
        store.path(node).mkdir(parents=True)
        (store.path(node) / "manifest.json").write_text('{"files": {}}')
    looks = []
    monkeypatch.setattr(Store, "path", lambda self, node, path=Store.path: looks.append(node.key) or path(self, node))
    for number in (301, 302):
        store.inputs(taking(Round(number=number), *history[-3:]))
        assert len(looks) == (303 if number == 301 else 3)
        looks.clear()


def test_a_model_that_is_brought_to_this_machine_is_opened_where_it_lies_then(tmp_path):
    class Brought(Located):
        def fetch(self):
            Path(self.path).write_text("weights")

    store, model = Store(tmp_path), Node(Brought(str(tmp_path / "model")))
    user = taking(Round(), model)
    store.path(user).mkdir(parents=True)
    (store.path(user) / "manifest.json").write_text('{"files": {}}')
    assert not store.artifact(user).inputs["input0"].path.exists()
    store.obtain(model, run_of())
    assert store.artifact(user).inputs["input0"].path == tmp_path / "model"


def run_of() -> LocalRun:
    return LocalRun(Runtime(device="cpu"), lambda *_: None)


def obtain(root: Path, stage: Stage, heartbeat: float = 0.2):
    return Store(root, heartbeat).obtain(Node(stage), run_of())


def build_in_a_process(root: Path, stage: Slow) -> subprocess.Popen[str]:
    """A builder of its own, so that it can be killed or stopped."""
    code = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_store import Slow, obtain
        artifact, built = obtain(Path({str(root)!r}), Slow({stage.lines}, {stage.pause}))
        print("built" if built else "reused", artifact.manifest["summary"])
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)


def wait_for_lines(root: Path, count: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        files = list((root / "artifacts" / "slow").glob(".*/*.partial/lines.txt"))
        if any(len(file.read_text().splitlines()) >= count for file in files):
            return
        time.sleep(0.05)
    raise AssertionError("the builder did not get that far")


def test_an_artifact_is_built_once_and_says_how(tmp_path):
    artifact, built = obtain(tmp_path, Slow())
    again, rebuilt = obtain(tmp_path, Slow())
    manifest = artifact.manifest
    assert (built, rebuilt) == (True, False)
    assert again.path == artifact.path
    assert manifest["files"]["lines.txt"]["bytes"] == 10
    assert manifest["fields"] == {"lines": 5, "pause": 0.0}
    assert manifest["sessions"][0]["device"] == "cpu"
    assert manifest["sessions"][0]["accelerator"] == cpu_name() != ""
    assert not list((tmp_path / "artifacts" / "slow").glob(".*")), "no claim and no partial is left"


def test_versions_are_read_once_a_process_and_not_for_every_node(tmp_path, monkeypatch):
    obtain(tmp_path, Slow())
    monkeypatch.setattr("importlib.metadata.version", pytest.fail)
    assert obtain(tmp_path, Slow(lines=2))[0].manifest["sessions"][0]["versions"]


def test_the_hardware_is_named_by_who_knows_it(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", {"cuda": "H100", "cuda:1": "A10"}.get)
    assert [accelerator(device) for device in ("cuda", "cuda:1", "cpu")] == ["H100", "A10", cpu_name()]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert accelerator("cuda") == cpu_name()


def test_a_failed_build_looks_unfinished_and_can_be_tried_again(tmp_path):
    for _ in range(2):  # the second try must not wait for the claim of the first
        with pytest.raises(ValueError, match="a bug"):
            obtain(tmp_path, Broken())
    assert not Store(tmp_path).has(Node(Broken()))
    assert Store(tmp_path).partials()


@dataclass
class Private(Slow):
    """Only the owner may read what it writes. Stops at the first try."""

    name = "private"
    confidential = True

    def build(self, inputs, out, run):
        continued = (out / "lines.txt").exists()
        if continued:
            assert (out / "lines.txt").stat().st_mode & 0o777 == 0o600, "a copy of partial work is private too"
        summary = super().build(inputs, out, run)
        if not continued:
            raise ValueError("stopped")
        return summary


@dataclass
class Passing(Slow):
    name = "passing"
    shows_texts = True

    def input_names(self):
        return ("source",)


@dataclass
class Counting(Passing):
    name = "counting"
    shows_texts = False


def modes(folder: Path) -> dict[str, str]:
    return {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()}


def test_only_the_owner_can_read_confidential_files_partial_ones_too(tmp_path):
    with pytest.raises(ValueError, match="stopped"):
        obtain(tmp_path, Private())
    (partial,) = Store(tmp_path).partials()
    assert modes(partial)["lines.txt"] == "0o600"
    artifact, _ = obtain(tmp_path, Private())
    assert modes(artifact.path) == {"lines.txt": "0o600", "builder.txt": "0o600", "manifest.json": "0o644"}
    assert artifact.manifest["confidential"] is True
    (tmp_path / "after").write_text("")
    assert modes(tmp_path)["after"] == "0o644", "other files of this process are not"


def test_confidential_files_of_threads_that_overlap_are_private_until_the_last_one_ends(tmp_path):
    """Shards of a hosted model are built in threads, and a process has one mask for new files."""
    one, other = readable_by_owner(True), readable_by_owner(True)
    one.__enter__()
    with other:
        one.__exit__(None, None, None)
        with readable_by_owner(False):
            (tmp_path / "inside").write_text("")
    (tmp_path / "after").write_text("")
    assert modes(tmp_path) == {"inside": "0o600", "after": "0o644"}


def test_what_shows_texts_of_confidential_files_is_confidential_and_what_counts_them_is_not(tmp_path):
    source = Node(Private())
    passing = Node(Passing(), {"source": source})
    assert passing.confidential
    assert Node(Passing(), {"source": passing}).confidential
    assert not Node(Counting(), {"source": passing}).confidential
    assert not Node(Passing(), {"source": Node(Slow())}).confidential


def test_a_full_disk_is_reported_and_the_partial_is_kept(tmp_path):
    with pytest.raises(SynthdivError, match="no space left") as caught:
        obtain(tmp_path, Broken("disk"))
    (partial,) = Store(tmp_path).partials()
    assert str(partial) in str(caught.value)
    assert (partial / "half.txt").read_text() == "half"


def test_four_processes_at_once_build_it_once(tmp_path):
    stage = Slow(lines=20, pause=0.02)
    builders = [build_in_a_process(tmp_path, stage) for _ in range(4)]
    words = [builder.communicate(timeout=120)[0].split()[0] for builder in builders]
    assert sorted(words) == ["built", "reused", "reused", "reused"]


def test_a_builder_that_claims_between_the_look_and_the_claim_is_waited_for(tmp_path, monkeypatch):
    node, run, rivals = Node(Slow()), run_of(), []

    def look(folder):
        claim = current(folder)
        if not rivals:
            rivals.append(take(folder, claim))
        return claim

    monkeypatch.setattr(store_module, "current", look)
    run.stop.reason = "terminated"  # who waits stops
    with pytest.raises(Stopped):
        Store(tmp_path).obtain(node, run)
    assert current(unfinished(Store(tmp_path).path(node))) == rivals[0]


def test_kill_9_loses_only_what_was_not_written(tmp_path):
    stage = Slow(lines=40, pause=0.1)
    builder = build_in_a_process(tmp_path, stage)
    wait_for_lines(tmp_path, 10)
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    artifact, built = obtain(tmp_path, stage)
    assert built
    assert artifact.manifest["summary"]["continued_from"] >= 10
    assert (artifact.path / "lines.txt").read_text().splitlines() == [str(number) for number in range(40)]


def test_a_stopped_builder_is_taken_over_and_discards_its_work_when_it_wakes(tmp_path):
    """SIGSTOP: alive to the system, dead to its heartbeat. Two builders never share a directory."""
    stage = Slow(lines=30, pause=0.1)
    builder = build_in_a_process(tmp_path, stage)
    wait_for_lines(tmp_path, 5)
    builder.send_signal(signal.SIGSTOP)
    try:
        artifact, built = obtain(tmp_path, stage)
        before = {file.name: file.read_bytes() for file in artifact.path.iterdir()}
    finally:
        builder.send_signal(signal.SIGCONT)
    message = builder.communicate(timeout=120)[0]
    assert built
    assert artifact.manifest["summary"]["continued_from"] >= 5
    assert message.startswith("reused"), "the sleeper must find its work superseded"
    assert {file.name: file.read_bytes() for file in artifact.path.iterdir()} == before
    assert (artifact.path / "builder.txt").read_text() == str(os.getpid())
    assert not Store(tmp_path).partials()


def test_a_truncated_artifact_is_named_and_never_used(tmp_path, capsys):
    artifact, _ = obtain(tmp_path, Slow())
    file = artifact.path / "lines.txt"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"lines\.txt has 7 bytes, not 10"):
        obtain(tmp_path, Slow())
    assert examine(tmp_path) == 1
    assert "lines.txt has 7 bytes" in capsys.readouterr().err


@dataclass
class Weights(Stage):
    """A model; with `below`, one that stands on another."""

    name = "weights"
    model = True
    below: int = 0

    def input_names(self):
        return ["base"] if self.below else []

    def build(self, inputs, out, run):
        (out / "model").mkdir()
        (out / "model" / "weights.bin").write_text(f"weights {self.below}")
        return {}


@dataclass
class Reader(Stage):
    name = "reader"
    number: int = 0

    def input_names(self):
        return ["model"]

    def build(self, inputs, out, run):
        return {}


def test_a_build_never_lists_the_folder_of_its_stage(tmp_path, monkeypatch):
    listed, scandir, listdir = list[str](), os.scandir, os.listdir
    monkeypatch.setattr(os, "scandir", lambda path=".": listed.append(str(path)) or scandir(path))
    monkeypatch.setattr(os, "listdir", lambda path=".": listed.append(str(path)) or listdir(path))
    for lines in (1, 2):
        assert obtain(tmp_path, Slow(lines))[1]
        assert not obtain(tmp_path, Slow(lines))[1]
    assert any("partial" in path for path in listed), "the listing is seen"
    assert str(tmp_path / "artifacts" / "slow") not in listed


def test_weights_are_checked_by_hash_once_in_a_process_with_those_they_stand_on(tmp_path, monkeypatch):
    base = Node(Weights())
    model, store = Node(Weights(1), {"base": base}), Store(tmp_path)
    for node in (base, model):
        Store(tmp_path).obtain(node, run_of())
    hashed, digest = list[str](), store_module.file_digest
    monkeypatch.setattr(store_module, "file_digest", lambda path: hashed.append(path.read_text()) or digest(path))
    for number in (0, 1):
        store.obtain(Node(Reader(number), {"model": model}), run_of())
    assert sorted(hashed) == ["weights 0", "weights 1"]
    file = store.path(base) / "model" / "weights.bin"
    file.write_text("weightS 0")
    with pytest.raises(DataError, match=rf"{base.label} is damaged: model/weights.bin has another SHA-256"):
        Store(tmp_path).obtain(Node(Reader(2), {"model": model}), run_of())


def linked(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("place", "change"),
    [("model/weights.bin", linked), ("model/weights.bin", piped), ("model", linked), ("manifest.json", piped),
     ("manifest.json", linked), ("", linked)],
)  # fmt: skip
def test_links_and_pipes_in_an_artifact_are_damage_and_not_followed(tmp_path, place, change):
    node = Node(Weights())
    artifact, _ = Store(tmp_path).obtain(node, run_of())
    change(artifact.path / place if place else artifact.path)
    with pytest.raises(DataError, match="is no regular file"):
        Store(tmp_path).obtain(node, run_of())


@pytest.mark.parametrize("change", [linked, piped])
def test_links_and_pipes_in_partial_work_are_not_continued(tmp_path, change):
    partial = unfinished(Store(tmp_path).path(Node(Slow()))) / "a.partial"
    partial.mkdir(parents=True)
    (partial / "lines.txt").write_text("0\n")
    change(partial / "lines.txt")
    assert obtain(tmp_path, Slow())[0].manifest["summary"]["continued_from"] == 0


def test_doctor_prints_commands_that_can_be_pasted_and_names_live_work(tmp_path, capsys):
    with pytest.raises(ConfigError, match="has no folder `artifacts`"):
        examine(tmp_path / "nowhere")
    root = tmp_path / "out puts"
    artifact, _ = obtain(root, Slow())
    (artifact.path / "lines.txt").write_text("")
    (partial := unfinished(Store(root).path(Node(Slow(7)))) / "a.partial").mkdir(parents=True)
    take(partial.parent, None)
    assert examine(root) == 1
    out, err = capsys.readouterr()
    assert shlex.split(err.split("again: ")[1]) == ["rm", "-r", str(artifact.path)]
    assert out.startswith(f"in work: {partial} (by process {os.getpid()} on ")


def test_doctor_sees_a_changed_byte_and_removes_nothing(tmp_path, capsys):
    artifact, _ = obtain(tmp_path, Slow())
    with pytest.raises(ValueError, match="a bug"):
        obtain(tmp_path, Broken())
    assert examine(tmp_path) == 0
    file = artifact.path / "lines.txt"
    file.write_bytes(file.read_bytes().replace(b"3", b"4"))
    assert examine(tmp_path) == 1
    message = capsys.readouterr()
    assert "another SHA-256" in message.err
    assert "1 unfinished" in message.out
    assert file.exists()
    assert Store(tmp_path).partials()


@pytest.mark.parametrize("text", ["", "[{", "[]", "{}"])
def test_a_manifest_that_cannot_be_read_counts_as_damage(tmp_path, text):
    artifact, _ = obtain(tmp_path, Slow())
    (artifact.path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json cannot be read"):
        obtain(tmp_path, Slow())


def test_outputs_whose_format_is_being_written_are_not_refused(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(os, "fsync", lambda _: looks.append(require_format(tmp_path)))
    require_format(tmp_path, create=True)
    assert looks == [None]
    assert {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()} == {"format.json": {"format": 2}}
