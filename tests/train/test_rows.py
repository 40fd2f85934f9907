"""Rows of a step are cut and packed into batches: each is there once, and none sees another."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.types import DataError
from synthdiv.train import rows
from synthdiv.train.loss import loss_sum
from synthdiv.train.packing import KINDS as ATTENTIONS
from synthdiv.train.packing import isolating, leak
from synthdiv.train.rows import Row, Rows, pack, parts
from tests.models.small import cpu_run
from tests.train.test_loss import KINDS, PLAIN, gradients, made, some_rows
from tests.train.test_module import blank, curve, trained, weights

LAWFUL = [(name, kind) for name in (*KINDS, *PLAIN) for kind in ATTENTIONS if (name, kind) != ("gemma2", "sdpa")]
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def padded(lengths, actual):
    return [len(part) * max(lengths[at] for at in part) for part in actual]


@given(lengths, st.integers(1, 12), st.integers(1, 200), st.integers(0, 50))
def test_parts_hold_every_number_once_and_keep_their_limits(lengths, most, tokens, overhead):
    actual = parts(lengths, most, tokens, overhead)
    assert sorted(itertools.chain(*actual)) == list(range(len(lengths)))
    for part, size in zip(actual, padded(lengths, actual), strict=True):
        assert len(part) <= most
        assert size <= tokens or len(part) == 1
    assert [lengths[at] for part in actual for at in part] == sorted(lengths)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(0, 50))
def test_no_other_cut_costs_less(lengths, overhead):
    actual = parts(lengths, 99, 10**6, overhead)
    order, costs = sorted(lengths), []
    for cuts in itertools.product([False, True], repeat=len(order) - 1):
        ends = [*(at + 1 for at, cut in enumerate(cuts) if cut), len(order)]
        costs.append(sum((end - begin) * order[end - 1] + overhead for begin, end in itertools.pairwise([0, *ends])))
    assert sum(padded(lengths, actual)) + overhead * len(actual) == min(costs)


@given(lengths, st.integers(40, 90))
def test_packing_holds_every_number_once_within_the_limit(lengths, limit):
    actual = pack(lengths, limit)
    assert sorted(itertools.chain(*actual)) == list(range(len(lengths)))
    sizes = [sum(lengths[at] for at in one) for one in actual]
    assert max(sizes) <= limit
    assert sum(size <= limit / 2 for size in sizes) <= 1, "two halves would be one"
    assert actual == pack(lengths, limit)


@pytest.mark.parametrize("packed", [0, 40])
@given(st.integers(0, 30))
def test_a_plan_is_of_the_rows_of_its_step(packed, micro):
    rows, chosen = some_rows(20), [3, 7, 7, 1, 0, 19, 3, 12, 5]
    plan = Rows(rows, 2, packed).plan(chosen, micro, "cpu")
    assert Counter(row for batch in plan for sequence in batch for row in sequence) == Counter(chosen)
    for batch in plan:
        assert sum(map(len, batch)) <= (micro or 99)
        assert all(sum(len(rows[row].ids) for row in sequence) <= (packed or 30) for sequence in batch)


@pytest.mark.parametrize(("name", "attention"), LAWFUL)
def test_packed_rows_have_the_loss_and_gradients_of_rows_apart(name, attention):
    model, rows = made(name), some_rows(9)
    model.set_attn_implementation(attention)
    table, apart = Rows(rows, 2, 64), Rows(rows, 2)
    every = list(range(len(rows)))
    alone = [loss_sum(model, apart.tensors([[row]], "cpu")) for row in every]
    plan = table.plan(every, 0, "cpu")
    together = [loss_sum(model, table.tensors(batch, "cpu")) for batch in plan]
    assert sum(len(batch) for batch in plan) < len(rows)
    one, other = (gradients(model, sum(total for total, _ in part)) for part in (alone, together))
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-5)
    own = dict(zip(every, (each for _, each in alone), strict=True))
    result = [own[row] for batch in plan for sequence in batch for row in sequence]
    torch.testing.assert_close(torch.cat([each for _, each in together]), torch.cat(result), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "attention"), LAWFUL)
def test_no_row_changes_the_logits_of_another(name, attention):
    """All but the row that is changed, before and behind it, to the last bit; its own do change."""
    model, rows = made(name).eval(), some_rows(6)
    model.set_attn_implementation(attention)
    isolating(model, rows, 2, "fp32")
    layout = [[0, 1, 2], [3, 4, 5]]

    def logits(given):
        batch = Rows(given, 2, 99).tensors(layout, "cpu")
        with torch.no_grad():
            return model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits

    before = logits(rows)
    for changed in range(6):
        ids = tuple((token + 7) % 50 for token in rows[changed].ids)
        after = logits([*rows[:changed], Row(ids, 0), *rows[changed + 1 :]])
        for line, sequence in enumerate(layout):
            at = 0
            for number in sequence:
                end = at + len(rows[number].ids)
                alike = torch.equal(before[line, at:end], after[line, at:end])
                assert alike == (number != changed), (changed, number)
                at = end


def test_a_model_whose_rows_see_one_another_is_refused():
    """With a mask over all of them, transformers takes no notice of positions that start again."""
    model, rows = made("llama"), some_rows()
    assert not leak(model, rows[:2], 2, "fp32")
    forward = model.forward

    def masked(input_ids, attention_mask=None, **more):
        return forward(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **more)

    model.forward = masked
    assert leak(model, rows[:2], 2, "fp32")
    with pytest.raises(DataError, match=r"train\.packing=true: in this LlamaForCausalLM rows of one sequence see"):
        isolating(model, rows, 2, "fp32")


def test_a_model_without_positions_is_refused():
    """A recurrent one carries its state from row to row."""
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    model = transformers.MambaForCausalLM(transformers.MambaConfig(**shape))
    with pytest.raises(DataError, match=r"train\.packing=true"):
        isolating(model, some_rows(), 2, "fp32")


@pytest.mark.parametrize("kind", ["paged|sdpa", "flash_attention_2", "flex_attention"])
def test_an_attention_that_nothing_tests_is_refused(kind):
    model = made("llama")
    model.config._attn_implementation = kind
    with pytest.raises(DataError, match=rf"under the attention {re.escape(kind)} .*needs eager or sdpa\. Set train"):
        isolating(model, some_rows(), 2, "fp32")


@pytest.mark.parametrize(("precision", "seen"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_model_is_asked_in_the_precision_in_which_it_trains(precision, seen):
    model, kinds = made("llama"), []
    model.lm_head.register_forward_hook(lambda _, given, logits: kinds.append(logits.dtype))
    isolating(model, some_rows(), 2, precision)
    assert kinds == [seen] * 3


@pytest.mark.parametrize("micro", [0, 1, 3])
def test_a_packed_training_ends_in_the_weights_of_an_unpacked_one(tmp_path, micro):
    whole, summary = trained(tmp_path / "whole")
    packed, other = trained(tmp_path / "packed", packed=40, run=cpu_run(micro_batch=micro))
    for name, value in weights(packed).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=0, atol=1e-5)
    for name in ("steps", "rows_seen", "supervised_tokens", "tokens"):
        assert summary[name] == other[name]
    names = ["step", "rows", "supervised_tokens", "tokens", "lr"]
    assert curve(tmp_path / "whole").select(names).equals(curve(tmp_path / "packed").select(names))
    assert not torch.equal(weights(whole)["lm_head.weight"], blank().lm_head.weight)


@pytest.mark.parametrize("packed", [0, 40])
def test_wider_batches_have_the_same_losses(tmp_path, monkeypatch, packed):
    """As they are on an accelerator."""
    curves = []
    for width in (1, 8):
        monkeypatch.setitem(rows.WIDTH, "cpu", width)
        batch = Rows(some_rows(), 1, packed).tensors([[0, 1], [2]] if packed else [[0], [2]], "cpu")
        assert batch["input_ids"].shape[1] % width == 0
        trained(tmp_path / f"{width}", packed=packed)
        curves.append(curve(tmp_path / f"{width}")["loss"].to_pylist())
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def test_what_lies_in_main_memory_is_fetched_as_seldom_as_fits():
    """Where a pass costs little, short and long rows are apart."""
    table = Rows([Row((0,) * length, 1) for length in (40, 500, 90, 2048, 130, 900, 60)], 0)
    plans = {device: table.plan(list(range(7)), 0, device) for device in ("cuda", "offload")}
    assert (len(plans["cuda"]), len(plans["offload"])) == (3, 1)
    many = Rows([Row((0,) * 2048, 1)] * 20, 0).plan(list(range(20)), 0, "offload")
    assert max(map(len, many)) * 2048 <= rows.AT_ONCE["offload"][0]
