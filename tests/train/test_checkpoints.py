"""States of a training on disk: whole or passed over, of this student, and made at a step."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from synthdiv.core.files import reach
from synthdiv.core.types import DataError
from synthdiv.core.types import Stopped as Asked
from synthdiv.train.checkpoints import CHECKPOINTS, newest_checkpoint, newest_first, save
from synthdiv.train.early import HELD_OUT
from tests.models.small import cpu_run
from tests.train.test_module import Stopped, blank, curve, stopping, trained, weights


def test_a_checkpoint_of_another_student_is_refused(tmp_path):
    with pytest.raises(Stopped):
        trained(tmp_path, run=stopping(2))
    with pytest.raises(DataError, match=r"step 2 is of another student or method.*lm_head\.weight.*\(40, 16\).*remove"):
        trained(tmp_path, blank(hidden_size=8))


def test_a_run_whose_newest_checkpoint_is_torn_ends_in_the_same_bits(tmp_path):
    whole, _ = trained(tmp_path / "whole")
    with pytest.raises(Stopped):
        trained(tmp_path / "cut", run=stopping(4))
    newest = newest_first(tmp_path / "cut" / CHECKPOINTS)[0]
    newest.write_bytes(newest.read_bytes()[:-300])
    finished, _ = trained(tmp_path / "cut")
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(finished).items())
    assert curve(tmp_path / "whole").equals(curve(tmp_path / "cut"))


def points(count):
    return [{"step": step} for step in range(1, count + 1)]


def test_a_torn_checkpoint_falls_back_to_the_one_before_and_is_removed(tmp_path):
    """Or it would count as one of the newest two, and push out what is kept after it."""
    files = [tmp_path / f"{step:09}.ckpt" for step in (3, 7, 20, 100)]
    for file in files:
        torch.save({"curve": points(int(file.stem)), "weight": torch.ones(50)}, file)
    assert len(newest_checkpoint(tmp_path)["curve"]) == 100
    files[3].write_bytes(files[3].read_bytes()[:200])
    assert len(newest_checkpoint(tmp_path)["curve"]) == 20
    files[2].write_bytes(b"")
    assert len(newest_checkpoint(tmp_path)["curve"]) == 7
    files[1].write_bytes(b"no file of torch's" * 40)
    assert len(newest_checkpoint(tmp_path)["curve"]) == 3
    assert newest_first(tmp_path) == files[:1]
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_a_checkpoint_whose_best_step_is_torn_is_no_use(tmp_path):
    for step, best in ((4, 4), (6, 4), (8, 8), (10, 8)):
        curve = points(step)
        curve[best - 1][HELD_OUT] = 1.0 / best
        torch.save({"curve": curve}, tmp_path / f"{step:09}.ckpt")
    assert len(newest_checkpoint(tmp_path)["curve"]) == 10
    (tmp_path / "000000008.ckpt").write_bytes(b"torn")
    assert len(newest_checkpoint(tmp_path)["curve"]) == 6


@pytest.mark.parametrize(
    "words", ["DefaultCPUAllocator: can't allocate memory", "unable to mmap: Cannot allocate memory (12)"]
)
def test_a_memory_that_is_too_small_is_no_torn_file(tmp_path, monkeypatch, words):
    torch.save({"curve": points(3)}, tmp_path / "000000003.ckpt")

    def failing(*_, **__):
        raise RuntimeError(words)

    monkeypatch.setattr(torch, "load", failing)
    with pytest.raises(RuntimeError, match="allocate"):
        newest_checkpoint(tmp_path)
    assert newest_first(tmp_path)


def test_what_an_interrupted_write_leaves_is_no_progress_and_does_not_stay(tmp_path, monkeypatch):
    def failing(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="no space"):
        save({"curve": points(3)}, tmp_path, cpu_run())
    monkeypatch.undo()
    assert reach([tmp_path])[0] < "000000001"
    save({"curve": points(4)}, tmp_path, cpu_run())
    assert [path.name for path in tmp_path.iterdir()] == ["000000004.ckpt"]


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_checkpoint_that_rotted_is_not_trained_on(tmp_path, place):
    """torch reads past the checksums that it writes."""
    for step in (3, 7):
        torch.save({"curve": points(step), "weight": torch.randn(5000)}, tmp_path / f"{step:09}.ckpt")
    newest = tmp_path / "000000007.ckpt"
    content = bytearray(newest.read_bytes())
    content[int(place * len(content))] ^= 1
    newest.write_bytes(content)
    assert len(newest_checkpoint(tmp_path)["curve"]) == 3


def test_a_signal_while_a_checkpoint_is_written_stops_at_the_next_step(tmp_path, monkeypatch):
    """Lightning would raise it where it stands, in this one of all ranks."""
    run = cpu_run(checkpoint_seconds=1e-6)
    run.stop.listen()

    def signalled(checkpoint, *given):
        save(checkpoint, *given)
        if len(checkpoint["curve"]) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("synthdiv.train.checkpoints.save", signalled)
    try:
        with pytest.raises(Asked, match="terminated"):
            trained(tmp_path / "cut", run=run)
    finally:
        run.stop.leave()
    assert len(newest_checkpoint(tmp_path / "cut" / CHECKPOINTS)["curve"]) == 4
