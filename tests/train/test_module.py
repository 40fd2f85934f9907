"""The gradient is that of the whole batch over supervised tokens however it is cut; a run can stop and go on."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter

import pyarrow.parquet
import pytest
import torch
import transformers

from synthdiv.train.adapter import with_adapter
from synthdiv.train.checkpoints import CHECKPOINTS, newest_checkpoint, newest_first
from synthdiv.train.fit import fit
from synthdiv.train.loss import loss_sum
from synthdiv.train.meter import VARYING
from synthdiv.train.recipe import Lora, Optimizing, Training
from synthdiv.train.rows import Row, Rows
from synthdiv.train.schedule import Match, schedule
from tests.models.small import cpu_run, some_rows

OPTIMIZING = Optimizing(1e-2, "cosine", 0.1, 0.01, 1.0)


def blank(**fields):
    torch.manual_seed(0)
    shape = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1} | fields
    config = transformers.LlamaConfig(
        **shape, num_attention_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=2
    )
    return transformers.LlamaForCausalLM(config)


def trained(out, model=None, optimizing=OPTIMIZING, rows=None, steps=8, run=None, packed=0, batch=4, **how):
    out.mkdir(exist_ok=True)
    model, rows = model or blank(), rows or some_rows()
    plan = schedule([row.supervised for row in rows], batch, Match.steps, steps, 0)
    summary = fit(Training(model, rows, plan, optimizing, 0, 1, out, run or cpu_run(), packed=packed, **how))
    return model, summary


def curve(folder):
    """What every run of one training has alike."""
    return pyarrow.parquet.read_table(folder / "metrics.parquet").drop_columns(list(VARYING))


def test_a_step_on_a_processor_keeps_no_trace_of_the_call_that_seeds_it(tmp_path, monkeypatch):
    """`torch.manual_seed` keeps one for each kind of accelerator that is not there: a tenth of a small step."""
    traces: list[int] = []
    monkeypatch.setattr("traceback.format_stack", lambda *_: traces.append(1) or [])
    counts = []
    for steps in (2, 6):
        trained(tmp_path / str(steps), steps=steps)
        counts.append(len(traces) - sum(counts))
    assert counts[0] == counts[1]


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def tensors(rows, pad):
    return Rows(rows, pad).tensors([[number] for number in range(len(rows))], "cpu")


def test_only_the_answer_is_supervised_or_all():
    batch = tensors([Row((3, 4, 5, 6), 2), Row((7, 8), 1)], 9)
    assert batch["input_ids"].tolist() == [[3, 4, 5, 6], [7, 8, 9, 9]]
    assert batch["targets"].tolist() == [5, 6, 8]
    assert batch["places"].tolist() == [1, 2, 4]
    assert tensors([Row((3, 4, 5), 0)], 9)["targets"].tolist() == [4, 5]  # nothing predicts the first
    assert [Row((3, 4, 5, 6), 2).supervised, Row((7, 8), 1).supervised, Row((3, 4, 5), 0).supervised] == [2, 1, 2]


def test_the_first_token_of_an_answer_may_count_as_several():
    one, again = ([Row((3, 4, 5, 6), 2, first_counts=count), Row((7, 8), 1)] for count in (1, 3))
    assert tensors(again, 9)["places"].tolist() == [1, 1, 1, 2, 4]
    assert tensors(again, 9)["targets"].tolist() == [5, 5, 5, 6, 8]
    assert again[0].supervised == 4
    model = blank().eval()
    with torch.no_grad():
        (_, each), (total, _) = (loss_sum(model, tensors(rows, 9)) for rows in (one, again))
    assert total.item() == pytest.approx((each.sum() + 2 * each[0]).item())


def test_the_pad_token_teaches_nothing_and_the_end_token_does():
    """Padding is masked by position: a pad that is the end token does not mask the end away."""
    one, other = (tensors(some_rows(4), pad) for pad in (1, 2))
    assert one["targets"].equal(other["targets"])
    model = blank().eval()
    with torch.no_grad():
        assert loss_sum(model, one)[0].item() == pytest.approx(loss_sum(model, other)[0].item(), rel=1e-6)


@pytest.mark.parametrize("micro", [1, 3])
def test_a_micro_batch_changes_no_weight(tmp_path, micro):
    """Rows differ in length, so weighting micro-batches equally instead of by token would show."""
    whole, summary = trained(tmp_path / "whole")
    parts, cut = trained(tmp_path / "parts", run=cpu_run(micro_batch=micro))
    for name, value in weights(parts).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=0, atol=1e-5)
    assert summary["loss"] == pytest.approx(cut["loss"], abs=1e-4)
    assert not torch.equal(weights(whole)["lm_head.weight"], blank().lm_head.weight)


def test_metrics_hold_every_step(tmp_path):
    rows = some_rows()
    _, summary = trained(tmp_path, rows=rows)
    table = pyarrow.parquet.read_table(tmp_path / "metrics.parquet").to_pylist()
    plan = schedule([row.supervised for row in rows], 4, Match.steps, 8, 0)
    assert [point["step"] for point in table] == list(range(1, 9))
    assert [point["supervised_tokens"] for point in table] == [sum(rows[i].supervised for i in step) for step in plan]
    assert [point["tokens"] for point in table] == [sum(len(rows[i].ids) for i in step) for step in plan]
    assert summary["steps"] == 8
    assert summary["rows_seen"] == 32
    assert summary["supervised_tokens"] == sum(point["supervised_tokens"] for point in table)
    assert summary["tokens_per_second"] > 0
    assert summary["repetitions"] == pytest.approx(32 / 23, abs=1e-4)
    assert summary["peak_memory_bytes"] == max(point["memory_bytes"] for point in table) > 10**7
    assert all(math.isnan(point["mfu"]) and point["tokens_per_second"] > 0 for point in table)
    assert table[-1]["lr"] < table[0]["lr"] < max(point["lr"] for point in table) == 1e-2


def test_each_source_has_its_share_and_its_loss(tmp_path):
    rows = [dataclasses.replace(row, source="oak" if at % 3 else "human") for at, row in enumerate(some_rows())]
    _, summary = trained(tmp_path, rows=rows)
    table = pyarrow.parquet.read_table(tmp_path / "metrics.parquet").to_pylist()
    for point, step in zip(table, schedule([row.supervised for row in rows], 4, Match.steps, 8, 0), strict=True):
        counts = Counter(rows[number].source for number in step)
        assert {name: point[f"rows/{name}"] for name in ("human", "oak")} == {"human": 0, "oak": 0} | counts
        parts = [(point[f"loss/{name}"], point[f"supervised_tokens/{name}"]) for name in ("human", "oak")]
        assert sum(loss * count for loss, count in parts if count) == pytest.approx(
            point["loss"] * point["supervised_tokens"], rel=1e-5
        )
        assert [math.isnan(loss) for loss, _ in parts] == [count == 0 for _, count in parts]
    message = summary["by_source"]
    assert sum(part["rows_seen"] for part in message.values()) == 32
    assert sum(part["share"] for part in message.values()) == pytest.approx(1)
    assert sum(part["supervised_tokens"] for part in message.values()) == summary["supervised_tokens"]
    assert all(0 < part["loss"] < 10 for part in message.values())


@pytest.mark.parametrize("packed", [0, 64])
def test_activations_that_are_computed_twice_change_no_bit(tmp_path, packed):
    """With dropout, which must fall alike both times. That they are is seen by the layers, which run again."""
    runs, models = [[], []], [dropping(), dropping()]
    for model, times, twice in zip(models, runs, (False, True), strict=True):
        model.base_model.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, times=times: times.append(1))
        trained(tmp_path / str(twice), model, run=cpu_run(gradient_checkpointing=twice), packed=packed)
    assert len(runs[1]) > 1.5 * len(runs[0])
    for name, value in weights(models[1]).items():
        assert torch.equal(value, weights(models[0])[name]), name


class Stopped(Exception):
    pass


def stopping(after):
    """A run that saves at every step and is stopped after `after` of them."""
    run = cpu_run(checkpoint_seconds=1e-6)
    count = itertools.count(1)

    def progress(*_):
        if next(count) > after:
            raise Stopped

    run.progress = progress
    return run


def dropping():
    return with_adapter(blank(), Lora(r=4, dropout=0.5), 0)


@pytest.mark.parametrize("make", [blank, dropping])
def test_a_run_that_was_stopped_twice_ends_in_the_same_bits(tmp_path, make):
    """With dropout and an optimizer's memory; a frozen base is in no checkpoint."""
    whole, _ = trained(tmp_path / "whole", make())
    for after in (3, 3):
        with pytest.raises(Stopped):
            trained(tmp_path / "cut", make(), run=stopping(after))
    kept = newest_checkpoint(tmp_path / "cut" / CHECKPOINTS)
    assert 0 < len(kept["curve"]) < 8
    assert len(newest_first(tmp_path / "cut" / CHECKPOINTS)) == 2
    if make is dropping:
        assert kept["state_dict"]
        assert all("lora_" in name for name in kept["state_dict"])
    finished, _ = trained(tmp_path / "cut", make())
    for name, value in weights(finished).items():
        assert torch.equal(value, weights(whole)[name]), name
    assert curve(tmp_path / "whole").equals(curve(tmp_path / "cut"))
