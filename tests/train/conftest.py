"""A student and a mix of human answers, built once for each module."""

from __future__ import annotations

import pytest

from synthdiv.mix.mix import Mix
from tests.models.small import build, tiny_model


@pytest.fixture(scope="module")
def student(root):
    return build(root, tiny_model())


@pytest.fixture(scope="module")
def human(root, prompts):
    return build(root, Mix(48, real_share=1.0, train_rows=48, shard_rows=4), prompts)
