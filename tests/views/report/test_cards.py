"""The card of a mix says what is in it, and shows no row that asks for harm."""

from __future__ import annotations

import dataclasses
import json

import pytest

from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.core.types import Score
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.mix.mix import Mix
from synthdiv.prompts.prompt_set import ToyPrompts, read_prompts
from synthdiv.prompts.requests import Requests
from synthdiv.prompts.table import Columns, Table
from synthdiv.views.report.cards import SHOWN, cards, source_rows
from tests.models.small import WORLD, build, toy_prompts

NAMES = {"c": "human"}


@pytest.fixture
def sweep(tmp_path):
    """A sweep of one human mix of which some rows are planted, and one prompt is asked by the safety suite too."""
    prompts = build(tmp_path, toy_prompts(toy=ToyPrompts(60, dataclasses.replace(WORLD, thirds=True), planted=0.1)))
    train = read_prompts(prompts, "train")
    (tmp_path / "asked.jsonl").write_text(json.dumps({"prompt": train[0]["prompt"]}) + "\n")
    table = Table(str(tmp_path / "asked.jsonl"), rows=1, columns=Columns(response=None))
    requests = build(tmp_path, Requests(table=table, confidential=True))
    mix = build(tmp_path, Mix(len(train), real_share=1.0, min_words=7), prompts)
    ledger = Ledger(tmp_path, "cards", "test")
    cell = CellRecord("c", "a", [], {"mix": "human"}, {}, {}, {}, {}, [requests.key, mix.key], "t", prompts.key,
                      licences={"student": "MIT", "oak": "X"})  # fmt: skip
    nodes = [
        NodeRecord("t", "train", {"mix": mix.key}, {}), NodeRecord(mix.key, "mix", {}, {}),
        NodeRecord(prompts.key, "prompts", {}, {"licence": "CC0-1.0"}),
        NodeRecord(requests.key, "requests", {}, {}),
    ]  # fmt: skip
    ledger.add([cell], nodes)
    return tmp_path, ledger, mix, train


def test_a_card_has_sources_licences_overlap_diversity_and_quality(sweep):
    root, ledger, mix, _ = sweep
    quality = Score("mix/human/quality/panel", 4.5, 40)
    ((line,), files) = cards(root, ledger, {"c": {quality.name: quality}}, NAMES)
    text = files[line["card"]]
    rows, summary = read_mix(mix), mix.manifest["summary"]
    assert line["rows"] == len(rows)
    assert line["arms"] == "human"
    assert "\nOf human.\n" in text
    assert files["mixes.csv"].startswith("card,arms,rows,effective sources")
    assert line["effective sources"] == 1
    assert line["removed"] == summary["removed"]["human"]["length"] > 0
    assert line["test answers"] == summary["overlap"]["test"]["answers"]["human"]
    assert "| human |" in text
    assert "CC0-1.0" in text
    assert "requests" in text, "the suite's own set is compared too"
    assert "| mix/human/quality/panel | 4.5 | 40 |" in text
    assert "distinct_2@words" in text


def test_the_diversity_on_a_card_is_that_of_rows_of_every_author(sweep, monkeypatch):
    """Rows of a mix are in the order of rounds and authors: the first ones are of the first author."""
    root, ledger, mix, _ = sweep
    measured, count = [], len(read_mix(mix)) // 2
    monkeypatch.setattr("synthdiv.views.report.cards.ANSWERS", count)
    monkeypatch.setattr(
        "synthdiv.views.report.cards.words_estimates",
        lambda arm, _: measured.append([text for (text,) in arm.texts]) or [],
    )
    cards(root, ledger, {}, NAMES)
    last = [row["response"] for row in read_mix(mix)[count:]]
    assert count / 4 < sum(row in measured[0] for row in last) < count


def test_a_source_of_which_no_row_is_left_stays_on_the_card():
    rows = [{"source": "oak", "response": "A text.", "response_tokens": 3, "finish": "stop"}]
    summary = {"removed": {"elm": {"length": 7}}, "overlap": {"test": {"answers": {"oak": 1}}}}
    oak, elm = source_rows(rows, summary, {"oak": "MIT"})
    assert (oak["rows"], oak["removed"], oak["licence"], oak["test answers"]) == (1, 0, "MIT", 1)
    assert (elm["rows"], elm["removed"], elm["licence"], elm["test answers"]) == (0, 7, "not stated", 0)


def test_a_card_shows_no_row_that_is_planted_or_asks_what_a_suite_asks(sweep):
    root, ledger, _, train = sweep
    ((line,), files) = cards(root, ledger, {}, NAMES)
    shown = files[line["card"]].partition("## A sample")[2]
    harmful = [row["prompt"] for row in train if row["planted"]]
    assert harmful
    assert sum(row["prompt"] in shown for row in train) == SHOWN
    assert not any(prompt in shown for prompt in [*harmful, train[0]["prompt"]])


def test_a_mix_that_is_not_finished_has_no_card(tmp_path):
    ledger = Ledger(tmp_path, "none", "test")
    cell = CellRecord("c", "a", [], {}, {}, {}, {}, {}, [], "t", "p")
    ledger.add([cell], [NodeRecord("t", "train", {"mix": "m"}, {}), NodeRecord("p", "prompts", {}, {})])
    assert cards(tmp_path, ledger, {}, NAMES) == ([], {})
