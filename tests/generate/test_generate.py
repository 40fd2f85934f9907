"""What every backend's shard has in common: one row and one line of the log for each request."""

from __future__ import annotations

import pytest

from synthdiv.generate.answer import LOG
from synthdiv.generate.generate import Generate, Split, read_log, read_samples
from synthdiv.generate.spec import Sampling
from tests.models.small import build, cpu_run, tiny_model


@pytest.fixture(scope="module")
def model(root):
    return build(root, tiny_model())


def test_a_line_of_the_log_that_was_cut_swallows_no_other(prompts, model, tmp_path):
    """As a full disk leaves it: rows are written after their lines."""
    stage = Generate("oak", sampling=Sampling(1.0, 1.0, 8), split=Split.test, batch_tokens=60)
    (tmp_path / LOG).write_text('{"id": "toy-0", "sample": 0, "at": 1.0, "batch": 0}\n{"id": "toy-')
    stage.build({"prompts": prompts, "model": model}, tmp_path, cpu_run())
    rows, log = read_samples(tmp_path), read_log(tmp_path)
    assert [(line["id"], line["sample"]) for line in log] == [(row.id, row.sample) for row in rows]
    assert len(rows) == 12
    assert {line["batch"] for line in log} == set(range(len({line["batch"] for line in log})))


def test_train_prompts_are_answered_as_often_as_asked(prompts, model, tmp_path):
    """Each answer of a stream of its own."""
    stage = Generate("oak", sampling=Sampling(1.0, 1.0, 8), rows=48, shard_rows=4, samples=3)
    message = stage.build({"prompts": prompts, "model": model}, tmp_path, cpu_run())
    rows = read_samples(tmp_path)
    assert message["rows"] == len(rows) == 3 * len({row.id for row in rows})
    assert {row.sample for row in rows} == {0, 1, 2}
    assert len({row.seed for row in rows}) == len(rows)
