"""Every row of a mix is traced to the request that generated it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from synthdiv.core.types import Artifact
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.views.trace import answers, mix_rows
from tests.conftest import synthdiv


@pytest.fixture(scope="module")
def mixes(study):
    folders = list((study / "outputs/artifacts/mix").glob("[!.]*"))
    return {folder: read_mix(Artifact(None, "", folder)) for folder in folders}


def test_every_row_of_every_mix_has_its_request(study, mixes):
    """By source and sample, in a shard from which the mix was built."""
    root, sampled = study / "outputs", 0
    for prompt in sorted({row["id"] for rows in mixes.values() for row in rows})[:10]:
        generated = {(row["source"], row["sample"]): row for row in answers(root, prompt)}
        for row in mix_rows(root, prompt):
            if row["source"] == "human":
                continue
            answer = generated[row["source"], row["sample"]]
            assert answer["response"] == row["response"]
            assert answer["shard"] in row["shards"]
            assert answer["request"]["batch_rows"] > 0
            assert json.loads(Path(answer["manifest"]).read_text())["fields"]["sampling"] == answer["sampling"]
            sampled += 1
    assert sampled > 10


def test_trace_prints_text_and_json(study, mixes):
    row = next(row for rows in mixes.values() for row in rows if row["source"] != "human")
    shown = synthdiv("trace", row["id"], cwd=study).stdout
    for word in (row["prompt"].splitlines()[0], row["source"], f"random stream {row['seed']}", "rows.jsonl", "human"):
        assert word in shown
    output = json.loads(synthdiv("trace", row["id"], "--json", cwd=study).stdout)
    (answer,) = [item for item in output["answers"] if item["seed"] == row["seed"]]
    assert (answer["response"], answer["finish"]) == (row["response"], row["finish"])
    assert answer["mixes"][0]["position"] == row["position"]
    assert output["human"][0]["response"]


def test_a_damaged_artifact_costs_no_other_answer(study, mixes, tmp_path):
    """A manifest, a mix and a row that are cut: what is whole is shown, and the file is named."""
    shutil.copytree(study / "outputs", tmp_path / "outputs")
    row = next(row for rows in mixes.values() for row in rows if row["source"] != "human")
    whole = [answer["file"] for answer in answers(tmp_path / "outputs", row["id"])]
    first, *others = (Path(file).parent for file in whole)
    (first / "manifest.json").write_text("{}")
    mix, *_ = (tmp_path / "outputs/artifacts/mix").glob("[!.]*/mix.parquet")
    mix.write_bytes(mix.read_bytes()[:99])
    done = synthdiv("trace", row["id"], "--json", cwd=tmp_path)
    assert [Path(answer["file"]).parent.name for answer in json.loads(done.stdout)["answers"]] == [
        folder.name for folder in others
    ]
    assert "mix.parquet: cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [(["no-such-id"], "no answer to a prompt of this id in outputs"), ([], "needs the id of a prompt")],
)
def test_an_id_without_an_answer_is_refused(study, words, message):
    assert message in synthdiv("trace", *words, cwd=study, code=2).stderr
