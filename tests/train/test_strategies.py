"""What is shared out over ranks before any rank starts, and what is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.types import ConfigError, DataError
from synthdiv.train.adapter import verify
from synthdiv.train.rows import Row, Rows
from synthdiv.train.strategies import check_devices, check_distinct

WEIGHTS = {"a.lora_A.weight": torch.ones(2, 3), "a.lora_B.weight": torch.tensor([[0.0, 1.0]])}
SHAPES = {"a.lora_A.weight": (2, 3), "a.lora_B.weight": (1, 2)}


@given(st.lists(st.integers(2, 40), min_size=1, max_size=20), st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_every_row_is_taken_once_and_all_ranks_make_as_many_passes(lengths, size, micro, packed):
    rows = Rows([Row(tuple(range(length)), 1) for length in lengths], 0, 64 * packed)
    shares = []
    for rank in range(size):
        shares.append(rows.shared(list(range(len(lengths))), micro, "cpu", rank, size))
    assert len({len(share) for share in shares}) == 1
    taken = [row for share in shares for batch, weight in share if weight for sequence in batch for row in sequence]
    assert sorted(taken) == list(range(len(lengths)))
    if micro:
        assert all(sum(map(len, batch)) <= micro for share in shares for batch, _ in share)


def test_whole_weights_are_verified():
    verify(WEIGHTS.items(), SHAPES)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"a.lora_A.weight": torch.empty(0)}, r"a\.lora_A\.weight: has the shape \(0,\).* and had \(2, 3\)"),
        ({"a.lora_A.weight": torch.full((2, 3), math.nan)}, r"a\.lora_A\.weight: has values that are not finite"),
        ({"a.lora_B.weight": torch.zeros(1, 2)}, r"a\.lora_B\.weight: is zero, as before training"),
        ({"b.lora_B.weight": torch.ones(1)}, r"b\.lora_B\.weight: has the shape \(1,\).*had None"),
    ],
)
def test_weights_that_are_not_are_refused(change, expected):
    with pytest.raises(DataError, match=expected):
        verify((WEIGHTS | change).items(), SHAPES)


@pytest.mark.parametrize("device", ["mps", "cuda:1"])
def test_one_device_is_none_of_several_ranks(device):
    check_devices(SimpleNamespace(device="cpu", world_size=2))
    check_devices(SimpleNamespace(device=device, world_size=1))
    with pytest.raises(ConfigError, match=rf"runtime\.device={device}: is one device and there are 2 ranks"):
        check_devices(SimpleNamespace(device=device, world_size=2))


def test_more_ranks_than_devices_are_refused():
    check_distinct(["GPU-a", "GPU-b"])
    with pytest.raises(ConfigError, match="4 ranks have 3 devices and each needs one of its own; lower"):
        check_distinct(["GPU-a", "GPU-b", "GPU-a", "GPU-c"])
