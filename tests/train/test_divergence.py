"""A training that has gone wrong is found, says at which rows, and keeps what was good; others go on."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from synthdiv.core.types import DataError
from synthdiv.train.checkpoints import CHECKPOINTS, newest_checkpoint
from synthdiv.train.divergence import LossWatch
from synthdiv.train.recipe import Optimizing
from synthdiv.train.schedule import Match, schedule
from tests.models.small import cpu_run
from tests.train.test_module import blank, some_rows, trained


def test_a_loss_that_is_no_number_is_an_error(tmp_path):
    """Weights that were spoilt before are not kept as good."""
    run = cpu_run(checkpoint_seconds=1e-6)
    with pytest.raises(DataError, match=r"at step 2; its rows.*no checkpoint was kept yet\. Lower train\.lr"):
        trained(tmp_path, optimizing=Optimizing(1e30, "constant", 0.0, 0.0, 0.0), run=run)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_row_that_breaks_the_loss_is_named_and_the_state_before_it_is_kept(tmp_path):
    """A token whose vector is infinite: its row is the first to find out."""
    rows = [dataclasses.replace(row, id=f"row-{at}") for at, row in enumerate(some_rows())]
    plan = schedule([row.supervised for row in rows], 4, Match.steps, 8, 0)
    bad = next(number for number in plan[3] if all(number not in step for step in plan[:3]))
    rows[bad] = dataclasses.replace(rows[bad], ids=(*rows[bad].ids[:-2], 39, rows[bad].ids[-1]))
    for at, row in enumerate(rows):
        rows[at] = row if at == bad else dataclasses.replace(row, ids=tuple(min(token, 38) for token in row.ids))
    model = blank()
    with torch.no_grad():
        model.model.embed_tokens.weight[39] = math.inf
    model.model.embed_tokens.weight.requires_grad = False
    with pytest.raises(DataError, match=rf"the loss is nan at step 4; .* are row-{bad} \(nan\).*that of step 3 in"):
        trained(tmp_path, model, rows=rows)
    assert len(newest_checkpoint(tmp_path / CHECKPOINTS)["curve"]) == 3


def test_a_loss_that_grows_and_stays_is_an_error(tmp_path):
    """Steps whose loss was too high are not kept, nor those that the next step found to be no good."""
    rising, run = Optimizing(100.0, "constant", 0.9, 0.0, 0.0), cpu_run(checkpoint_seconds=1e-6)
    with pytest.raises(DataError, match=r"the loss has grown to .* on average at step \d+; its rows") as error:
        trained(tmp_path, optimizing=rising, steps=300, run=run)
    kept = newest_checkpoint(tmp_path / CHECKPOINTS)["curve"]
    assert kept[-1]["loss"] <= LossWatch(kept).limit
    assert f"that of step {len(kept)} in" in str(error.value)


def drawn(random, kind, rows):
    """Losses and supervised tokens of rows as they come: easy long answers, short hard ones, and all between."""
    easy = random.random(rows) < {"two kinds": 0.5, "mostly easy": 0.8, "alike": 0.0}[kind]
    losses = np.where(easy, 0.05, 2.5) * random.lognormal(0, 0.5, rows)
    return losses, np.where(easy, random.integers(50, 400, rows), random.integers(2, 30, rows))


@pytest.mark.parametrize("kind", ["two kinds", "mostly easy", "alike"])
@pytest.mark.parametrize("batch", [1, 2, 4, 16])
def test_no_training_is_stopped_for_what_its_rows_are(kind, batch):
    for seed in range(40):
        random = np.random.default_rng(seed)
        for steps in (2, 5, 12, 200):
            watch = LossWatch([])
            for step in range(steps):
                losses, tokens = drawn(random, kind, batch)
                loss = float((losses * tokens).sum() / tokens.sum())
                watch.add({"loss": loss, "supervised_tokens": float(tokens.sum()), "rows": batch})
                assert not watch.diverges(step + 1 == steps), (seed, steps, step)


@pytest.mark.parametrize("levels", [(10.4, 0.7, 12.0), (3.3, 1.5, 7.5), (6.9, 0.3, 6.9), (2.0, 9.0, 9.0)])
def test_a_training_that_was_well_and_is_not_is_found(levels):
    watch, actual = LossWatch([]), None
    for step in range(90):
        watch.add({"loss": levels[step // 30], "supervised_tokens": 100.0, "rows": 32})
        actual = actual or (watch.diverges(step == 89) and step)
    assert actual
    assert actual < (45 if levels[1] > levels[0] else 75)
    again = LossWatch([{"loss": levels[step // 30], "supervised_tokens": 100.0, "rows": 32} for step in range(70)])
    assert again.limit == pytest.approx(2 * min(levels) + 1, rel=0.3), "also one that goes on"


@pytest.mark.parametrize("lr", [3.0, 10.0])
@pytest.mark.parametrize("steps", [6, 30])
def test_a_training_that_diverges_at_once_is_found_however_short(tmp_path, lr, steps):
    run = cpu_run(checkpoint_seconds=1e-6)
    with pytest.raises(DataError, match=r"the loss has grown to .*no checkpoint was kept"):
        trained(
            tmp_path, optimizing=Optimizing(lr, "constant", 0.0, 0.0, 0.0), steps=steps, run=run,
            rows=some_rows(200), batch=32,
        )  # fmt: skip
