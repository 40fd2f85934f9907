"""`synthdiv judge`: planted effects are found, mistakes are one line, and the calibration is where reports look."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from synthdiv.core.ledger import NodeRecord
from synthdiv.core.types import DataError
from synthdiv.views.calibration import Calibration, calibration_file, judge_identity, judge_status
from tests.conftest import ROOT, write_rows

AUTHORS = ("me", "oak", "elm")
PAIRS = ["pairs.jsonl", "--judge", "gpt", "--pair", "first", "second", "--prompt", "id"]
EVERY = [*PAIRS, "--label", "human", "--order", "order", "--text", "a", "b", "--judge-author", "me"]
ID, OTHER = "0a" * 6, "1b" * 6  # what a judge is
RATINGS = ["ratings.jsonl", "--judge", "gpt", "--rubric", "harm/2", "--prompt", "id", "--label", "human"]
MISTAKES = {
    "no judge": (["pairs.jsonl"], ["required: --judge", "synthdiv judge --help"]),
    "no label column": ([*PAIRS, "--label", "humen"], ["--label humen: no such column", "did you mean human?"]),
    "no pair column": ([*EVERY[:3], "--pair", "first", "b2"], ["--pair b2: no such column"]),
    "no verdict column": ([*PAIRS, "--verdict", "x"], ["--verdict x: no such column"]),
    "letters": ([*PAIRS, "--verdict", "letter"], ["column letter is a text; it needs P(first wins)", "--values"]),
    "other letters": ([*PAIRS, "--verdict", "letter", "--values", "X", "Y"], ["--values X Y: no cell", "it has A, B"]),
    "one value": ([*PAIRS, "--values", "A"], ["--values A: needs the cells for first wins and second wins"]),
    "a value twice": ([*PAIRS, "--values", "A", "A"], ["--values A A: needs the cells", "each once"]),
    "values of ratings": ([*RATINGS, "--values", "1", "2"], ["--values: is for pairs"]),
    "one text": ([*PAIRS, "--text", "a"], ["--text a: pairs need two columns"]),
    "two texts": ([*RATINGS, "--text", "text", "id"], ["--text text id: a rating needs one column"]),
    "own without authors": ([*RATINGS, "--judge-author", "me"], ["--judge-author me: needs the column of authors"]),
    "unknown own": (
        [*PAIRS, "--judge-author", "ash"],
        ["--judge-author ash: is no author of pairs.jsonl; it has elm, me, oak"],
    ),
    "no identity": ([*PAIRS, "--identity", "gpt"], ["--identity gpt: needs the 12 characters that a report has"]),
    "order of ratings": ([*RATINGS, "--order", "id"], ["--order id: is for pairs"]),
    "order without prompts": (
        [*PAIRS[:6], "--order", "order"],
        ["--order order: needs --prompt COLUMN, so that both orders of a pair are one item"],
    ),
    "no order": ([*PAIRS, "--order", "id"], ["pairs.jsonl, line 1: column id is a text; it needs 0"]),
    "one author": ([*PAIRS[:3], "--pair", "me", "me"], ["every pair is of 'me' with itself; two authors are needed"]),
    "no verdicts": ([*PAIRS, "--verdict", "none"], ["column none holds no verdict"]),
    "no number": (
        ["ratings.jsonl", "--judge", "gpt", "--verdict", "text"],
        ["column text is a text; it needs a number"],
    ),
}
REAL = Path(__file__).resolve().parents[4] / "shared" / "data"


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def labelled_pairs(prompts=120, bias=1.0, position=0.5, length=1.0):
    """Each pair of three authors in both orders; the human sees quality, the judge order, length and its own texts."""
    draw = random.Random(0)
    rows = []
    for prompt in range(prompts):
        for i, first in enumerate(AUTHORS):
            for second in AUTHORS[:i]:
                quality, longer = draw.gauss(0, 1), draw.choice([20, -20, 5, -5])
                human = float(draw.random() < sigmoid(2 * quality))
                for order in (0, 1):
                    own = bias * ((first == "me") - (second == "me"))
                    logit = 2 * quality + own + length * longer / 20 + position * (1 - 2 * order)
                    texts = {"a": "x" * (30 + longer), "b": "x" * 30}
                    names = {"id": f"p{prompt}", "first": first, "second": second, "order": order, "me": "me"}
                    extra = {"human": human, "letter": "AB"[order], "none": None}
                    rows.append(names | texts | extra | {"verdict": sigmoid(logit)})
    return rows


def labelled_ratings(items=250):
    draw = random.Random(0)
    rows = []
    for item in range(items):
        for author in ("me", "oak"):
            human = draw.choice([1, 2, 3, 4, 5])
            length = draw.choice([10, 100])
            verdict = human + 0.5 * (author == "me") + 0.4 * (length == 100) + draw.choice([-0.3, 0.3])
            row = {"id": item, "author": author, "human": human, "verdict": verdict, "text": "x" * length}
            rows.append(row)
    return rows


@pytest.fixture
def scores_of(typed, tmp_path):
    """Run the command on rows; its scores by group and name, and the lines above them."""

    def run(rows, *arguments):
        write_rows(tmp_path / "pairs.jsonl", rows)
        write_rows(tmp_path / "ratings.jsonl", rows)
        output = typed("judge", *arguments, "--json")
        assert output.code == 0, output.err
        scores = {}
        for score in json.loads(output.out):
            scores.setdefault(score["group"], {})[score["name"]] = score
        return scores, output.err

    return run


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(case, typed, tmp_path):
    write_rows(tmp_path / "pairs.jsonl", labelled_pairs(2))
    write_rows(tmp_path / "ratings.jsonl", labelled_ratings(2))
    arguments, phrases = MISTAKES[case]
    output = typed("judge", *arguments)
    assert (output.code, output.out) == (2, "")
    assert len(output.err.splitlines()) == 1, output.err
    assert all(phrase in output.err for phrase in phrases), output.err
    assert not (tmp_path / "outputs").exists()


def test_planted_effects_are_found_and_the_calibration_is_written(scores_of, tmp_path):
    scores, about = scores_of(labelled_pairs(), *EVERY, "--identity", ID)
    judge, labels, gap = (scores[group] for group in ("judge", "labels", "judge - labels"))
    assert judge["position_bias"]["value"] > 0.05
    assert 0.02 < judge["flips"]["value"] < 0.4
    assert judge["discrimination"]["low"] > 0.7
    assert judge["alpha"]["n"] == 120
    assert gap["votes_for_longer"]["low"] > 0
    assert gap["votes_for_itself"]["low"] > 0
    assert abs(labels["votes_for_itself"]["value"] - 0.5) < 0.1
    assert judge["self_bias"]["low"] > 0.3
    assert judge["term/length"]["low"] > 0
    assert judge["votes_for_itself_at_equal_length"]["low"] > 0.5
    actual = Calibration(**json.loads(calibration_file(tmp_path / "outputs", ID).read_text()))
    assert (actual.items, dict(actual.labels), actual.validated) == (360, {"human": 360}, True)
    assert actual.scores["alpha"]["value"] == judge["alpha"]["value"]
    status = judge_status(tmp_path / "outputs", ID)
    assert status.startswith("validated on 360 items labelled by human: alpha 0.")
    assert status in about


def test_where_all_labels_tie_votes_at_equal_quality_and_length_are_those_at_equal_length(scores_of):
    scores, _ = scores_of([row | {"human": 0.5} for row in labelled_pairs()], *EVERY)
    judge = scores["judge"]
    for field in ("value", "low", "high", "n"):
        equal = judge["votes_for_itself_at_equal_quality_and_length"][field]
        assert equal == pytest.approx(judge["votes_for_itself_at_equal_length"][field], abs=1e-9)


def test_labels_are_compared_with_each_other_too(scores_of):
    rows = labelled_pairs(20)
    rows = [row | {"other": row["human"] if row["id"] > "p14" else 1 - row["human"]} for row in rows]
    pairs, about = scores_of(rows, *PAIRS, "--label", "human", "--label", "other")
    assert 0 < pairs["labels"]["alpha"]["value"] < 1
    assert "labelled by human, other" in about
    rows = [row | {"other": 6 - row["human"]} for row in labelled_ratings(50)]
    ratings, _ = scores_of(rows, *RATINGS, "--label", "other")
    assert ratings["labels"]["alpha"]["value"] < 0


def test_a_fair_judge_has_none_of_these_effects(scores_of):
    scores, _ = scores_of(labelled_pairs(bias=0, position=0, length=0), *EVERY)
    judge, gap = scores["judge"], scores["judge - labels"]
    assert judge["position_bias"]["value"] == pytest.approx(0, abs=1e-9)
    assert judge["flips"]["value"] == 0
    for score in (judge["self_bias"], judge["term/length"], gap["votes_for_itself"], gap["votes_for_longer"]):
        assert score["low"] < 0 < score["high"]


def test_exchanging_the_roles_of_the_two_authors_changes_no_score(scores_of):
    rows = labelled_pairs(30)
    exchanged = [
        row | {"first": row["second"], "second": row["first"], "a": row["b"], "b": row["a"], "order": 1 - row["order"]}
        | {"verdict": 1 - row["verdict"], "human": 1 - row["human"]} if index % 3 else row
        for index, row in enumerate(rows)
    ]  # fmt: skip
    one, other = (scores_of(each, *EVERY)[0] for each in (rows, exchanged))
    for group, members in one.items():
        for name, score in members.items():
            assert other[group][name]["value"] == pytest.approx(score["value"], abs=1e-6), name


def test_cells_that_name_a_side_a_tie_or_a_number_between(scores_of):
    cells = ["1", "2", "1.25", "0", "nonsense", None]
    rows = [{"id": str(i), "first": "oak", "second": "elm", "verdict": cell} for i, cell in enumerate(cells)]
    scores, about = scores_of(rows, *PAIRS, "--values", "1", "2", "0")
    assert scores["judge"]["no_verdict"]["value"] == pytest.approx(2 / 6)
    assert "1 cell of verdict: none of 1, 2, 0, such as 'nonsense'." in about
    assert "No --label: without labels the judge stays unvalidated" in about
    assert scores["judge"]["strength/oak"]["value"] > 0  # 1, 0, 0.75 and 0.5


def test_unusual_files_are_remarked_in_one_line_each(scores_of):
    rows = labelled_pairs(20)
    own_pair = rows[0] | {"second": rows[0]["first"]}
    rows = [*rows, *(row | {"id": "more"} for row in rows[:1]), own_pair, rows[0] | {"id": "x", "a": ""}]
    _, about = scores_of(rows, *EVERY)
    for line in ("Left out: 1 pair of an author with itself.", "1 of 246 texts are empty",
                 "3 authors have unequal numbers of texts, from 80 (elm) to 82 (oak)"):  # fmt: skip
        assert line in about
    scores, about = scores_of([row | {"verdict": 0.5} for row in rows], *EVERY)
    assert "All verdicts are ties: the judge takes no side." in about
    assert scores["judge"]["agreement"]["value"] is None
    assert "not identifiable: discrimination 0.50 is below 0.55" in scores["judge"]["self_bias"]["note"]


def test_a_pair_without_one_of_its_two_orders_is_left_out_and_counted(scores_of):
    rows = labelled_pairs(30)
    whole, _ = scores_of(rows[6:], *EVERY)
    rows[0]["verdict"] = None  # the first pair of the first prompt lacks an order, and so do the others
    partial, about = scores_of([row for row in rows if row["id"] != "p0" or row["order"] == 1], *EVERY)
    assert "Left out: 3 pairs with a verdict in one order only." in about
    assert partial["judge"]["agreement"]["value"] == whole["judge"]["agreement"]["value"]
    assert "3 of 90 pairs have a verdict in one order only" in partial["judge"]["position_bias"]["note"]


def test_ratings_are_compared_with_labels_of_the_same_answers(scores_of, tmp_path):
    scores, about = scores_of(
        labelled_ratings(), *RATINGS, "--author", "author", "--judge-author", "me", "--text", "text"
    )
    judge = scores["judge"]
    assert judge["rating_over_labels_of_itself"]["value"] == pytest.approx(0.5, abs=0.1)
    assert judge["rating_over_labels"]["value"] == pytest.approx(0.45, abs=0.1)
    assert judge["length_slope"]["value"] == pytest.approx(0.2 / math.tanh(1), abs=0.05)
    assert judge["alpha"]["value"] > 0.8
    assert judge["discrimination"]["value"] > 0.9
    assert not (tmp_path / "outputs" / "judges").exists(), "no report knows whose verdicts these are"
    assert "No --identity, so no report shows this: validated on 500 items labelled by human" in about


def test_few_labels_another_judge_and_a_corrupt_file(scores_of, tmp_path):
    scores_of(labelled_pairs(60), *PAIRS, "--label", "human", "--identity", ID, "runtime.outputs=elsewhere")
    outputs = tmp_path / "elsewhere"
    assert judge_status(outputs, ID).startswith("unvalidated, fewer than 200 labels: compared on 180")
    assert judge_status(outputs, OTHER).startswith("unvalidated: never compared with labels")
    calibration_file(outputs, ID).write_text("{}")
    with pytest.raises(DataError, match="is no calibration of a judge"):
        judge_status(outputs, ID)


CHANGES = [{"judge": [name]} for name in ("model", "backend", "precision", "sampling", "top_logprobs")]
CHANGES += [{"rubric": [name]} for name in ("version", "instruction")]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_judge_is_what_it_is_and_not_its_name(change):
    """A renamed or exchanged checkpoint would pass as validated."""
    fields = {"source": "gpt", "backend": "logits", "precision": "bf16", "sampling": {"top_p": 0.9}, "top_logprobs": 0}

    def identity(judge=(), rubric=(), name="gpt"):
        changed = fields | {"source": name} | {each: "other" for each in judge if each != "model"}
        inputs = {"prompts": name, "model": "other" if "model" in judge else "phi"}
        asked = {"name": "quality", "version": 1, "instruction": "?"} | dict.fromkeys(rubric, "other")
        return judge_identity(NodeRecord("", "generate", inputs, changed), asked)

    assert identity() == identity(name="renamed") != identity(**change)


def test_the_help_loads_no_large_library():
    code = "import sys; import synthdiv.views.judge.verb as verb; verb.parser(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.skipif(not REAL.exists(), reason="the real verdicts are not beside the checkout")
def test_the_figures_of_the_page_are_those_of_the_real_verdicts(tmp_path, typed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # a narrow terminal wraps the table
    page = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8")
    program, after = re.search(r"python - FOLDER <<'EOF'\n(.*?)\nEOF\n(.*)", page, re.DOTALL).groups()
    subprocess.run([sys.executable, "-c", program, str(REAL)], cwd=tmp_path, check=True)
    commands = re.findall(r"^synthdiv (judge .*)$", after.replace("\\\n", " "), re.MULTILINE)
    tables = re.findall(r"```text\n(.*?)```", after, re.DOTALL)
    assert len(commands) == len(tables) == 2
    for command, table in zip(commands, tables, strict=True):
        output = typed(*command.split())
        assert output.code == 0, output.err
        printed = "\n".join(" ".join(line.split()) for line in output.out.splitlines())
        assert [line for line in table.splitlines() if line not in printed] == []
