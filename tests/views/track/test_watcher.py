"""A training is shown step by step while it runs, and a tracker that fails stops nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synthdiv.core.ledger import CellRecord, Ledger
from synthdiv.core.local_run import Stop
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.engine.build import Builder
from synthdiv.mix.mix import Mix
from synthdiv.study.config import Track, TrackerName
from synthdiv.study.records import node_record
from synthdiv.train.early import HELD_OUT
from synthdiv.train.recipe import Method, StopRule
from synthdiv.train.tokens import Tokens
from synthdiv.train.train import Train
from synthdiv.views.track import watcher as live
from tests.models.small import tiny_model, toy_prompts
from tests.views.track.test_cell import Recorder
from tests.views.track.test_wandb import Listener, items, on_terminal, records

WANDB = Track(TrackerName.wandb, "eggs")


def nodes() -> dict[str, Node]:
    prompts, student = Node(toy_prompts()), Node(tiny_model())
    mix = Node(Mix(48, real_share=1.0, train_rows=48, shard_rows=4), {"prompts": prompts})
    recipe = Train(
        method=Method.full, epochs=3, batch_rows=16, lr=1e-2, validation=0.1, stop=StopRule.early, evaluate_every=2
    )
    inputs = {"prompts": prompts, "student": student, "mix": mix}
    inputs["tokens"] = Node(Tokens(), dict(inputs))
    return inputs | {"train": Node(recipe, inputs)}


def built(root: Path, track: Track) -> list[str]:
    ledger = Ledger(root, "eggs", "job")
    ledger.add([], [node_record(node) for node in nodes().values()])
    builder = Builder(
        Store(root), ledger, Runtime(str(root), device="cpu"), Stop(), watcher=live.TrackWatcher(track, root, "eggs")
    )
    return [builder.build(node).state for node in nodes().values()]


def test_each_step_is_shown_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(live, "online", lambda track, root: recorder)
    assert built(tmp_path, WANDB) == ["built"] * 5
    node = nodes()["train"]
    verbs = [call[0] for call in recorder.calls]
    assert verbs == ["begin", *["curve"] * (len(verbs) - 2), "finish"], "of the training alone, and of all its steps"
    assert recorder.calls[0] == ("begin", node.key, node.label, "training", ["eggs"], {"node": node.key}, "train")
    points = [call[1][0] for call in recorder.calls[1:-1]]
    assert [point["step"] for point in points] == list(range(1, len(points) + 1))
    assert all(point["loss"] > 0 and point["tokens_per_second"] > 0 for point in points)
    assert [point[HELD_OUT] > 0 for point in points] == [step % 2 == 0 for step in range(1, len(points) + 1)]
    assert recorder.calls[-1] == ("finish", 0)


@pytest.mark.parametrize("verb", ["begin", "curve", "finish"])
def test_a_tracker_that_fails_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: Any, caplog: Any, verb: str
) -> None:
    recorder = Recorder(fails=verb)
    monkeypatch.setattr(live, "online", lambda track, root: recorder)
    assert built(tmp_path, WANDB) == ["built"] * 5
    assert [call[0] for call in recorder.calls].count(verb) == 1, "it is not called again"
    assert sum("tracking" in record.message for record in caplog.records) == 1


def test_cells_without_a_suite_that_is_done_cost_one_look_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called for each node that is done, and a cell of late rounds has thousands of nodes."""
    keys = [str(number) for number in range(3000)]
    cell = CellRecord("c", "a", [], {}, {}, {}, {"suite": keys[-1]}, {}, keys, None, "0")
    watcher, looks, shown = live.TrackWatcher(WANDB, tmp_path, "eggs"), list[str](), list[str]()
    monkeypatch.setattr(live, "track_cell", lambda *given: shown.append(given[2].key))
    watcher.cells([cell], lambda key: bool(looks.append(key)) or key != keys[-1])
    assert len(looks) == 1
    watcher.cells([cell], lambda key: key != keys[7])
    assert not shown, "a node of it was removed and is not built again yet"
    watcher.cells([cell], lambda key: True)
    assert shown == ["c"]


def test_without_a_tracker_none_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "online", lambda track, root: pytest.fail("there is none"))
    assert built(tmp_path, Track()) == ["built"] * 5


def test_offline_the_curve_is_written_with_the_finished_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "mode", lambda: "offline")
    assert live.online(WANDB, tmp_path) is None
    monkeypatch.setattr(live, "mode", lambda: "online")
    tracker = live.online(WANDB, tmp_path)
    assert tracker
    assert tracker.resume, "a resumed training continues its run"  # type: ignore[attr-defined]


def test_a_real_run_has_the_steps_that_were_shown(tmp_path: Path) -> None:
    script = """
import math, os, sys
from pathlib import Path
from synthdiv.study.config import Track, TrackerName
from synthdiv.core.stage import Node
from synthdiv.views.track import watcher as live
from synthdiv.views.track.wandb import WandbTracker
from synthdiv.train.pretrain import Pretrain
from synthdiv.train.train import Train
live.online = lambda track, root: WandbTracker(track.project, track.entity, root, resume=True)
shown = live.TrackWatcher(Track(TrackerName.wandb, "eggs"), Path(sys.argv[1]), "sweep")
node = Node(Train(), dict.fromkeys(Train().input_names(), Node(Pretrain())))
shown.begin(node)
for step in (1, 2, 3):
    shown.point({"step": step, "loss": 1.5 / step, "validation_loss": math.nan})
shown.end(True)
"""
    listener = Listener()
    code, output = on_terminal(script, tmp_path, listener)
    listener.socket.close()
    assert (code, output) == (0, "")
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    every = list(records(file))
    history = [items(record.history.item) for record in every if record.WhichOneof("record_type") == "history"]
    assert [(row["train/step"], row["train/loss"]) for row in history] == [(1, 1.5), (2, 0.75), (3, 0.5)]
    assert not [row for row in history if "train/validation_loss" in row]
    (run,) = [record.run for record in every if record.WhichOneof("record_type") == "run"][:1]
    from synthdiv.train.pretrain import Pretrain

    assert run.run_id == Node(Train(), dict.fromkeys(Train().input_names(), Node(Pretrain()))).key
