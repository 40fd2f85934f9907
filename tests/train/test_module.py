"""The gradient is that of the whole batch over supervised tokens however it is cut; a run can stop and go on."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import signal
from collections import Counter

import numpy as np
import pyarrow.parquet
import pytest
import torch
import transformers

from synthdiv.train.adapter import with_adapter
from synthdiv.train.checkpoints import CHECKPOINTS, newest_checkpoint, newest_first, save
from synthdiv.train.early import HELD_OUT
from synthdiv.train.fit import fit
from synthdiv.train.loss import loss_sum
from synthdiv.train.meter import OF_THE_DAY
from synthdiv.train.module import Optimizing
from synthdiv.train.rows import Row, Rows
from synthdiv.train.schedule import Match, schedule
from synthdiv.train.stage import Lora
from synthdiv.train.unusable import Watch
from synthdiv.types import DataError
from synthdiv.types import Stopped as Asked
from tests.models.small import cpu_run

OPTIMIZING = Optimizing(1e-2, "cosine", 0.1, 0.01, 1.0)


def blank(**fields):
    torch.manual_seed(0)
    shape = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1} | fields
    config = transformers.LlamaConfig(
        **shape, num_attention_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=2
    )
    return transformers.LlamaForCausalLM(config)


def some_rows(count=23):
    random = torch.Generator().manual_seed(1)
    rows = []
    for _ in range(count):
        length = int(torch.randint(4, 30, (), generator=random))
        prompt = int(torch.randint(1, length - 1, (), generator=random))
        rows.append(Row(tuple(torch.randint(3, 40, (length,), generator=random).tolist()), prompt))
    return rows


def trained(out, model=None, optimizing=OPTIMIZING, rows=None, steps=8, run=None, packed=0, batch=4):
    out.mkdir(exist_ok=True)
    model, rows = model or blank(), rows or some_rows()
    plan = schedule([row.supervised for row in rows], batch, Match.steps, steps, 0)
    summary = fit(model, rows, plan, optimizing, 0, 1, out, run or cpu_run(), "fp32", packed)
    return model, summary


def curve(folder):
    """What every run of one training has alike."""
    return pyarrow.parquet.read_table(folder / "metrics.parquet").drop_columns(list(OF_THE_DAY))


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
    told = summary["by_source"]
    assert sum(part["rows_seen"] for part in told.values()) == 32
    assert sum(part["share"] for part in told.values()) == pytest.approx(1)
    assert sum(part["supervised_tokens"] for part in told.values()) == summary["supervised_tokens"]
    assert all(0 < part["loss"] < 10 for part in told.values())


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
    assert kept[-1]["loss"] <= Watch(kept).limit
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
            watch = Watch([])
            for step in range(steps):
                losses, tokens = drawn(random, kind, batch)
                loss = float((losses * tokens).sum() / tokens.sum())
                watch.add({"loss": loss, "supervised_tokens": float(tokens.sum()), "rows": batch})
                assert not watch.diverges(step + 1 == steps), (seed, steps, step)


@pytest.mark.parametrize("levels", [(10.4, 0.7, 12.0), (3.3, 1.5, 7.5), (6.9, 0.3, 6.9), (2.0, 9.0, 9.0)])
def test_a_training_that_was_well_and_is_not_is_found(levels):
    watch, found = Watch([]), None
    for step in range(90):
        watch.add({"loss": levels[step // 30], "supervised_tokens": 100.0, "rows": 32})
        found = found or (watch.diverges(step == 89) and step)
    assert found
    assert found < (45 if levels[1] > levels[0] else 75)
    again = Watch([{"loss": levels[step // 30], "supervised_tokens": 100.0, "rows": 32} for step in range(70)])
    assert again.limit == pytest.approx(2 * min(levels) + 1, rel=0.3), "also one that goes on"


def test_a_checkpoint_of_another_student_is_refused(tmp_path):
    with pytest.raises(Stopped):
        trained(tmp_path, run=stopping(2))
    with pytest.raises(DataError, match=r"step 2 is of another student or method.*lm_head\.weight.*\(40, 16\).*remove"):
        trained(tmp_path, blank(hidden_size=8))


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


@pytest.mark.parametrize("lr", [3.0, 10.0])
@pytest.mark.parametrize("steps", [6, 30])
def test_a_training_that_diverges_at_once_is_found_however_short(tmp_path, lr, steps):
    run = cpu_run(checkpoint_seconds=1e-6)
    with pytest.raises(DataError, match=r"the loss has grown to .*no checkpoint was kept"):
        trained(
            tmp_path, optimizing=Optimizing(lr, "constant", 0.0, 0.0, 0.0), steps=steps, run=run,
            rows=some_rows(200), batch=32,
        )  # fmt: skip


def test_a_signal_while_a_checkpoint_is_written_stops_at_the_next_step(tmp_path, monkeypatch):
    """Lightning would raise it where it stands, in this one of all ranks."""
    run = cpu_run(checkpoint_seconds=1e-6)
    run.stop.listen()

    def signalled(checkpoint, *given):
        save(checkpoint, *given)
        if len(checkpoint["curve"]) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("synthdiv.train.fit.save", signalled)
    try:
        with pytest.raises(Asked, match="terminated"):
            trained(tmp_path / "cut", run=run)
    finally:
        run.stop.leave()
    assert len(newest_checkpoint(tmp_path / "cut" / CHECKPOINTS)["curve"]) == 4
