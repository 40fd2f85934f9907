"""Early stopping: it ends after so many looks without a better one, and the best step is what is kept and saved."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.fields import problems
from synthdiv.core.store import Store
from synthdiv.core.types import DataError
from synthdiv.mix.mix import Mix
from synthdiv.train.checkpoints import CHECKPOINTS, newest_first, read
from synthdiv.train.early import HELD_OUT, Early, best_step
from synthdiv.train.fit import fit
from synthdiv.train.recipe import Method, Overlong, StopRule, Training
from synthdiv.train.schedule import Match, schedule
from synthdiv.train.train import Train
from tests.models.small import build, cpu_run, opened
from tests.train.test_module import OPTIMIZING, Stopped, blank, some_rows, stopping, weights

FALLS = {2: 5.0, 4: 3.0, 6: 4.0, 8: math.nan, 10: 3.0, 12: 1.0}


def curve_of(losses, steps):
    return [{"step": step, HELD_OUT: losses.get(step, math.nan)} for step in range(1, steps + 1)]


@given(st.lists(st.floats(0, 9), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 3))
def test_it_ends_after_so_many_looks_that_were_no_better(losses, patience, every):
    early = Early(every, patience, lambda _: 0.0)
    steps = every * len(losses)
    looked = {every * place: loss for place, loss in enumerate(losses, 1)}
    assert all(early.due(step, 10**6) == (step in looked) for step in range(1, steps + 1))
    ended = next((place for place in range(1, steps + 1) if early.exhausted(curve_of(looked, place))), None)
    worse = 0
    for place, loss in enumerate(losses):
        worse = worse + 1 if place and loss >= min(losses[:place]) else 0
        if worse == patience:
            assert ended == every * (place + 1)
            break
    else:
        assert ended is None


def test_a_training_that_is_too_short_to_look_at_is_looked_at_once():
    early = Early(20, 5, lambda _: 0.0)
    assert [step for step in range(1, 8) if early.due(step, 7)] == [7]
    assert [step for step in range(1, 51) if early.due(step, 50)] == [20, 40]


def tuned(out, run=None, patience=2, steps=16, losses=FALLS):
    """Trained for real; what is seen on held-out rows is given."""
    out.mkdir(exist_ok=True)
    model, rows = blank(), some_rows()
    plan = schedule([row.supervised for row in rows], 4, Match.steps, steps, 0)
    count = {"step": 0}

    def loss(_):
        return losses[count["step"]]

    class Counting(Early):
        def due(self, step, total):
            count["step"] = step
            return super().due(step, total)

    early = Counting(2, patience, loss)
    summary = fit(Training(model, rows, plan, OPTIMIZING, 0, 1, out, run or cpu_run(), early=early))
    return model, summary


def test_the_best_step_is_what_is_left_at_the_end(tmp_path):
    """A loss that is no number is worse than any."""
    model, summary = tuned(tmp_path / "early")
    table = pyarrow.parquet.read_table(tmp_path / "early" / "metrics.parquet").to_pylist()
    assert (summary["steps_tried"], summary["steps"], len(table)) == (8, 4, 8)
    assert summary["supervised_tokens"] == sum(point["supervised_tokens"] for point in table[:4]), "what it has seen"
    assert [point[HELD_OUT] for point in table if not math.isnan(point[HELD_OUT])] == [5.0, 3.0, 4.0, math.inf]
    with pytest.raises(Stopped):
        tuned(tmp_path / "plain", run=stopping(4))
    best = read(tmp_path / "plain" / CHECKPOINTS / "000000004.ckpt")["state_dict"]
    assert all(torch.equal(value, best[name]) for name, value in weights(model).items())
    _, message = tuned(tmp_path / "longer", patience=4, losses=FALLS | {14: 2.0, 16: 2.0})
    assert (message["steps_tried"], message["steps"]) == (16, 12)


@pytest.mark.parametrize("after", [1, 3, 5, 7, 8])
def test_a_run_that_was_stopped_ends_early_at_the_same_step(tmp_path, after):
    whole, summary = tuned(tmp_path / "whole")
    with pytest.raises(Stopped):
        tuned(tmp_path / "cut", run=stopping(after))
    model, again = tuned(tmp_path / "cut")
    assert (again["steps_tried"], again["steps"]) == (summary["steps_tried"], summary["steps"])
    for name, value in weights(model).items():
        assert torch.equal(value, weights(whole)[name]), name


def test_the_best_step_is_kept_beside_the_newest_two(tmp_path):
    folder = tmp_path / "out" / CHECKPOINTS

    def stop_at_the_end(*_):
        if folder.exists() and newest_first(folder)[0].stem.endswith("7"):
            raise Stopped

    run = cpu_run(checkpoint_seconds=1e-6)
    run.progress = stop_at_the_end
    with pytest.raises(Stopped):
        tuned(tmp_path / "out", run, patience=9)
    assert [int(path.stem) for path in newest_first(folder)] == [7, 6, 4]


def test_of_equal_steps_the_first_is_the_best():
    assert best_step(curve_of({2: 1.0, 4: 1.0, 6: 2.0}, 6)) == 2
    assert best_step(curve_of({}, 6)) is None


def test_a_stage_that_stops_early_saves_its_best_step_and_says_that_it_is_not_matched(root, prompts, student, human):
    often = {"stop": StopRule.early, "evaluate_every": 3, "patience": 2}
    recipe = Train(method=Method.full, epochs=30, batch_rows=16, lr=3e-2, validation=0.2, **often)
    artifact = build(root, recipe, student, human, prompts)
    summary = artifact.manifest["summary"]
    table = pyarrow.parquet.read_table(artifact.path / "metrics.parquet").to_pylist()
    seen = {point["step"]: point[HELD_OUT] for point in table if not math.isnan(point[HELD_OUT])}
    assert summary["steps_tried"] < 30 * math.ceil(summary["train_rows"] / 16)
    assert summary["steps"] == min(seen, key=seen.get) == summary["steps_tried"] - 6
    assert summary["validation"]["own"] == pytest.approx(seen[summary["steps"]], abs=1e-5)
    assert summary["unmatched"] == "stops early"
    assert opened(artifact).context == opened(student).context
    assert not (artifact.path / CHECKPOINTS).exists()


def test_what_early_stopping_needs_is_asked_before_anything_runs():
    assert not problems(Train(stop=StopRule.early), "train")
    assert "train.validation=0" in problems(Train(stop=StopRule.early, validation=0.0), "train")[0]
    assert "train.match=steps" in problems(Train(stop=StopRule.early, match=Match.steps, budget=3), "train")[0]
    assert "needs 1 or more" in problems(Train(stop=StopRule.early, patience=0), "train")[0]
    assert "only train.stop=early" in problems(Train(patience=3), "train")[0]
    assert "train.left_out=0.1" in problems(Train(left_out=0.1), "train")[0]
    assert not problems(Train(left_out=0.1, overlong=Overlong.drop), "train")


def test_a_mix_too_small_to_hold_out_a_row_is_refused(root, prompts, student):
    one = build(root, Mix(1, real_share=1.0, train_rows=48, shard_rows=4), prompts)
    with pytest.raises(DataError, match=r"train\.validation"):
        build(root, Train(method=Method.full, stop=StopRule.early), student, one, prompts)


def test_another_builder_goes_on_from_where_the_last_one_was(tmp_path):
    """Not from the folder with the most bytes: the number of states that are kept goes up and down."""
    stage = Train(method=Method.full, stop=StopRule.early)
    old, new, first = (tmp_path / "artifacts" / "train" / ".key" / f"{name}.partial" for name in ("old", "new", "mine"))
    for folder, steps in ((old, (4, 6, 7)), (new, (12, 13))):
        (folder / CHECKPOINTS).mkdir(parents=True)
        for step in steps:
            (folder / CHECKPOINTS / f"{step:09}.ckpt").write_bytes(bytes(100))
    first.mkdir()
    Store(tmp_path)._inherit(SimpleNamespace(key="key", stage=stage), first)
    assert [int(path.stem) for path in newest_first(first / CHECKPOINTS)] == [13, 12]
