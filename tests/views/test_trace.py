"""Every row of a mix leads back to the request that made it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthdiv.core.types import Artifact
from synthdiv.mix.mix import read_mix
from synthdiv.views.trace import answers, places
from tests.conftest import synthdiv


@pytest.fixture(scope="module")
def mixes(study):
    folders = list((study / "outputs/artifacts/mix").glob("[!.]*"))
    return {folder: read_mix(Artifact(None, "", folder)) for folder in folders}


def test_every_row_of_every_mix_has_its_request(study, mixes):
    """By source and sample, in a shard that the mix was made from."""
    root, sampled = study / "outputs", 0
    for prompt in sorted({row["id"] for rows in mixes.values() for row in rows})[:10]:
        said = {(row["source"], row["sample"]): row for row in answers(root, prompt)}
        for place in places(root, prompt):
            if place["source"] == "human":
                continue
            answer = said[place["source"], place["sample"]]
            assert answer["response"] == place["response"]
            assert answer["shard"] in place["shards"]
            assert answer["request"]["batch_rows"] > 0
            assert json.loads(Path(answer["manifest"]).read_text())["fields"]["sampling"] == answer["sampling"]
            sampled += 1
    assert sampled > 10


def test_it_is_shown_to_a_person_and_to_a_program(study, mixes):
    row = next(row for rows in mixes.values() for row in rows if row["source"] != "human")
    shown = synthdiv("trace", row["id"], cwd=study).stdout
    for word in (row["prompt"].splitlines()[0], row["source"], f"random stream {row['seed']}", "rows.jsonl", "human"):
        assert word in shown
    told = json.loads(synthdiv("trace", row["id"], "--json", cwd=study).stdout)
    (answer,) = [item for item in told["answers"] if item["seed"] == row["seed"]]
    assert (answer["response"], answer["finish"]) == (row["response"], row["finish"])
    assert answer["mixes"][0]["position"] == row["position"]
    assert told["human"][0]["response"]


@pytest.mark.parametrize(
    ("words", "says"),
    [(["no-such-id"], "no answer to a prompt of this id in outputs"), ([], "needs the id of a prompt")],
)
def test_an_id_that_nobody_answered_is_said(study, words, says):
    assert says in synthdiv("trace", *words, cwd=study, code=2).stderr
