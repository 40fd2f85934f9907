"""The toy study of rounds, run small: every arm has scores for each round, and a silent student stops no other."""

from __future__ import annotations

import json
import string

import pyarrow.parquet
import pytest

from synthdiv.core.ledger import Ledger
from synthdiv.evaluate.suite import read_scores
from synthdiv.views.report.collect import collect
from synthdiv.views.report.sections import Content, sections
from synthdiv.views.report.sessions import Provenance
from tests.conftest import synthdiv


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    synthdiv("-m", "experiment=toy_rounds_tiny", cwd=folder)
    return folder


def test_every_arm_has_scores_for_each_round(ran):
    rows = collect(ran / "outputs", "toy_rounds_tiny")
    assert {row.state for row in rows} == {"done"}
    page = sections(Content(Ledger(ran / "outputs", "toy_rounds_tiny"), rows, Provenance()))
    drift = {plot.name.removesuffix(" along rounds.round"): plot for plot in page["plots"]["drift"]}
    assert (page["rounds"], next(iter(drift))) == (True, "truth/js"), "the truth is drawn beside the answer"
    for plot in (drift[measure] for measure in ("truth/js", "students/ngrams/alike")):
        assert [trace["x"] for trace in plot.data if "pooled" in trace["name"]] == [[0, 1]] * 2
        assert all(trace["x"] == [0, 1] for trace in plot.data)


def test_rows_know_their_writer_its_model_and_the_round(ran):
    """Of accumulated rows: those of round 0 and those that the students of round 0 wrote."""
    files = [*(ran / "outputs" / "artifacts" / "round_rows").glob("*/mix.parquet")]
    wanted = {"student-0", "student-1", "human"}
    pooled = next(rows for rows in map(read, files) if wanted <= {row["source"] for row in rows} and len(rows) == 48)
    trained = {path.parent.name for path in (ran / "outputs" / "artifacts" / "train").glob("*/manifest.json")}
    for row in pooled:
        assert (row["source"], row["model"]) == ("human", "") if row["round"] == 0 else row["model"] in trained
    assert [row["round"] for row in pooled] == [0] * 24 + [1] * 24
    assert len({row["id"] for row in pooled}) == 48, "fresh prompts"


def read(path):
    return pyarrow.parquet.read_table(path).to_pylist()


def test_trainings_of_all_rounds_take_equally_many_steps(ran):
    manifests = (ran / "outputs" / "artifacts" / "train").glob("*/manifest.json")
    assert {json.loads(path.read_text())["summary"]["steps"] for path in manifests} == {5}


def test_rows_that_filters_remove_in_any_round_are_refilled_and_counted_by_writer(ran):
    """Some human answers of round 0 are long; what a pool of two students writes is short, and by chance."""
    words = ["rounds=accumulate", "rounds.lineage=pooled", "rounds.member=0", "rounds.round=1", "hydra.sweeper.also=[]"]
    words += ["mix.rows=18", "mix.min_words=3", "mix.max_words=11", "mix.spare=0.65", "report.claims=[]"]
    synthdiv("-m", "experiment=toy_rounds_tiny", "sweep=refilled", *words, cwd=ran)
    nodes = Ledger(ran / "outputs", "refilled").nodes()
    folders = {node.stage: [] for node in nodes}
    for node in nodes:
        folders[node.stage].append(ran / "outputs" / "artifacts" / node.stage / node.key)
    summaries = [json.loads((path / "manifest.json").read_text())["summary"] for path in folders["mix"]]
    for summary in summaries:
        counts = {source: sum(why.values()) for source, why in summary["removed"].items()}
        assert summary["refilled"] == counts
        assert summary["sources"] in ({"human": 18}, {"student-0": 9, "student-1": 9})
    assert summaries[0]["refilled"]["human"] > 2
    ids = [{row["id"] for row in read(path / "mix.parquet")} for path in folders["mix"]]
    assert not ids[0] & ids[1]
    (both,) = folders["round_rows"]
    rows, summary = read(both / "mix.parquet"), json.loads((both / "manifest.json").read_text())["summary"]
    assert len({row["position"] for row in rows}) == len(rows) == 36
    assert summary["refilled"] == summaries[0]["refilled"] | summaries[1]["refilled"]


def test_a_round_whose_student_falls_silent_fails_and_the_others_go_on(ran):
    silence = ",".join(f"'{letter}'" for letter in [*string.ascii_letters, *string.digits, *".,:;!?<>|/-_#&", "\ufffd"])
    words = ["rounds=replace", "rounds.lineage=single", "rounds.member=0", "rounds.round=0,1", "hydra.sweeper.also=[]"]
    words += [f"rounds.sampling.stop=[{silence}]", "rounds.sampling.temperature=0"]
    done = synthdiv("-m", "experiment=toy_rounds_tiny", "sweep=silent", *words, cwd=ran, code=1)
    assert "round 1: student-0 wrote only empty text, from which nothing can be learned" in done.stdout + done.stderr
    rows = {row.axes["rounds.round"]: row for row in collect(ran / "outputs", "silent") if row.axes["mix"] != "none"}
    assert {number: row.state for number, row in rows.items()} == {"0": "done", "1": "failed"}
    assert read_scores(next((ran / "outputs" / "artifacts" / "truth").glob("*")))
