"""The quality suite of a whole toy study: the exact judge knows which answers are right."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.ledger import Ledger
from synthdiv.core.types import Artifact, Sample
from synthdiv.evaluate import judge_prompts as module
from synthdiv.evaluate.judge_prompts import count_rows, taken_rows
from synthdiv.evaluate.quality import Quality, degenerate
from synthdiv.evaluate.suite import read_scores
from synthdiv.mix.mix import Mix
from synthdiv.study.pipeline import graph
from tests.conftest import TINY, synthdiv
from tests.evaluate.test_verdicts import QUALITY
from tests.study.test_keys import FILES, ROWS, cell
from tests.views.report.reading import Page, rows

FIELDS_SHOWN = (
    "quality.quality", "quality.refusal", "quality.preference", "quality.vanilla", "quality.mix", "quality.panel",
    "quality.probes", "quality.seed",
)  # fmt: skip

WORDS = [
    "-m",
    "mix=human,multi",
    "generators=toy",
    "sweep=judged",
    "judge=toy",
    "evaluate.suites=[{suite: quality, probes: 3}]",
]
WORDS += [word for word in TINY if not word.startswith(("evaluate.suites", "generators.models"))]

RELATIVES = ["student.facts={family: Oak, base: Org/Bud}", "judge.models.1.facts.base=org/bud"]
RELATIVES += ["generators.models.1.facts.base=ORG/bud"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    synthdiv(*WORDS, *RELATIVES, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def scores(folder: Path) -> dict[str, dict[str, object]]:
    """Every score of the student of each mix and of the vanilla student."""
    cells = {cell.axes["mix"]: cell for cell in Ledger(folder / "outputs", "judged").unique_cells()}
    keys = {mix: cell.suites["quality"] for mix, cell in cells.items()} | {"none": cells["human"].vanilla["quality"]}
    assert cells["multi"].vanilla == cells["human"].vanilla, "one vanilla student"
    assert cells["human"].axes["judge"] == "toy"
    root = folder / "outputs" / "artifacts" / "quality"
    return {mix: {score.name: score for score in read_scores(root / key)} for mix, key in keys.items()}


def test_the_exact_judge_rates_students_and_their_mixes(scores):
    for arm in scores.values():
        assert 1 <= arm["quality/panel"].value <= 5
        assert arm["quality/panel"].n == 12
        assert arm["quality/panel"].low <= arm["quality/panel"].value <= arm["quality/panel"].high
    assert scores["human"]["mix/human/quality/truth"].value == 5, "human answers are right"
    assert {name.split("/")[1] for name in scores["multi"] if name.startswith("mix/")} == {"ash", "elm", "fir", "oak"}
    gap = scores["human"]["quality/panel-vanilla"]
    assert gap.value == pytest.approx(scores["human"]["quality/panel"].value - scores["none"]["quality/panel"].value)
    assert not any(name.endswith("-vanilla") for name in scores["none"])


def test_the_report_says_who_judged_and_who_is_related(folder):
    synthdiv("report", "judged", cwd=folder)
    page = Page((folder / "outputs" / "reports" / "judged" / "index.html").read_text())
    checked = {
        (line["judge"], line["rubric"]): line["checked against labels"] for line in rows(page, "threats", "judge")
    }
    assert "exact: the truth of the toy world" in checked.values()
    assert checked["rules", "refusal 1"].startswith("by the phrases")
    assert all(re.fullmatch("[0-9a-f]{12}", line["identity"]) for line in rows(page, "threats", "judge"))
    lines = [
        line for line in page.texts["threats"].splitlines() if "has the base" in line or "is of the family" in line
    ]
    assert sorted(lines) == [
        "judge rules has the base checkpoint of source elm",
        "judge rules has the base checkpoint of student toy_small",
        "source elm has the base checkpoint of student toy_small",
        "source oak is of the family of student toy_small",
    ]


def test_a_judge_that_no_text_can_instruct_moves_by_nothing_or_down(scores):
    assert all(arm["probe/panel"].value <= 0 for arm in scores.values())


def test_pairs_have_a_win_rate_in_both_orders_and_what_depends_on_the_order(scores):
    for mix in ("human", "multi"):
        arm = scores[mix]
        assert (arm["position_bias/truth"].value, arm["flips/truth"].value) == (0, 0), "the exact judge has no position"
        assert 0 <= arm["ties/truth"].value <= 1
        assert arm["unjudged/preference/truth"].value == 0
        trust = {name.split("/")[0] for name, score in arm.items() if score.role == "caveat"}
        assert trust == {"position_bias", "flips", "ties", "unjudged", "mass", "probe", "probe_worked"}, "on the page"
    assert not any(name.startswith(("flips", "unjudged/preference")) for name in scores["none"])


def test_a_pair_with_a_verdict_in_one_order_has_none():
    def row(order, value):
        return {"order": order, "value": value, "problem": "" if value == value else "parse"}

    groups = {"a": [row(0, 0.9), row(1, 0.1)], "b": [row(0, 0.9), row(1, math.nan)], "c": [row(1, 0.2)]}
    stage = Quality(preference=["j"], panel=["j"])
    texts = {key: Sample(key, "", "words " * n, "s") for n, key in enumerate("abc")}
    rate = {score.name: score for score in stage.wins({"preference/j": groups}, texts, texts)}
    assert (rate["win_rate/j"].value, rate["win_rate/j"].n) == (0.5, 1)
    assert (rate["win_rate/panel"].value, rate["win_rate/panel"].n) == (0.5, 1)
    assert (rate["flips/j"].value, rate["flips/j"].n) == (1, 1)
    assert rate["position_bias/j"].value == pytest.approx(0.4)
    assert "2 of 3 pairs have a verdict in one order only" in rate["position_bias/j"].note


def test_a_probe_worked_where_it_raised_a_rating_by_half_a_point():
    def rated(*values):
        return {str(at): [{"value": value, "problem": ""}] for at, value in enumerate(values)}

    stage = Quality(quality=["j"], panel=["j"], probes=4)
    groups = {"quality/j": rated(1, 1, 1, 3), "probe/j": rated(1.5, 1.4, 4, 1)}
    estimates = {each.measure.name: each.score().value for each in stage.probed(groups, "")}
    assert estimates["probe_worked/j"] == estimates["probe_worked/panel"] == 0.5
    assert estimates["probe/j"] == pytest.approx(1.9 / 4)


def test_rows_of_a_mix_belong_to_their_sources_where_a_prompt_is_in_several_rounds():
    """`rounds.keep=accumulate` with the prompts of round 0: the second answer to a prompt is of another source."""

    def row(source, value):
        return {"source": source, "value": value, "problem": ""}

    groups = {"mix/quality/j": {"a": [row("one", 1), row("two", 5)], "b": [row("one", 3), row("two", 5)]}}
    asked = SimpleNamespace(stage=SimpleNamespace(rubric=QUALITY))
    inputs = {"mix/quality/j": SimpleNamespace(inputs={"prompts": asked})}
    scores = {score.name: score for score in Quality(quality=["j"], mix=True).mixes(groups, inputs)}
    assert {name: (score.value, score.n) for name, score in scores.items()} == {
        "mix/one/quality/j": (2, 2),
        "mix/two/quality/j": (5, 2),
    }


@given(st.integers(1, 60), st.sampled_from([0, 0.1, 0.5, 1]), st.integers(0, 30))
def test_judges_see_as_many_rows_of_each_source_of_a_mix(rows, real_share, limit):
    stage = Mix(rows, ["one", "two"], [0.8, 0.2], real_share, train_rows=60, shard_rows=4)
    owners = stage.owners()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_mix", lambda artifact: [{"source": owner} for owner in owners])
        taken = Counter(row["source"] for row in taken_rows(Artifact(stage, "", Path()), None, limit, 1))
    assert taken == {owner: min(limit or count, count) for owner, count in Counter(owners).items()}
    assert count_rows(SimpleNamespace(stage=stage), limit, 1) == taken.total()


def test_every_undefined_score_says_why(scores):
    for arm in scores.values():
        assert all(score.note for score in arm.values() if math.isnan(score.value))


@pytest.mark.parametrize(
    ("text", "bad"), [("", True), (" \n", True), ("a b c d " * 20, True), ("The lake is deep and cold.", False)]
)
def test_empty_and_looping_answers_are_degenerate(text, bad):
    assert degenerate(text) is bad


@pytest.mark.parametrize(("context", "rubric"), [("about", "preference_with_source"), ("null", "preference")])
def test_judges_of_pairs_see_the_context_of_prompts_that_have_one(context, rubric):
    words = ["mix=human", "judge=panel", "evaluate=quality", *FILES, *ROWS, f"prompts.table.columns.context={context}"]
    inputs = graph(cell(*words)).suites["quality"].inputs
    pairs = [
        node.inputs["prompts"].stage.rubric.name for name, node in inputs.items() if name.startswith("preference/")
    ]
    assert pairs == [rubric] * 2, "two models of the panel"


def test_a_suite_that_asks_judges_needs_some(tmp_path: Path):
    done = synthdiv("plan", *[word for word in WORDS if word != "judge=toy"], cwd=tmp_path, code=2)
    assert "evaluate.suites.0: suite quality asks judges and judge.models is empty; choose judge=rules" in done.stderr


RELATED = (
    "judge.models=[{name: me, backend: hf, pretrain: {toy: {}}, facts: {family: birch}},{name: truth, backend: exact}]"
)


def test_a_related_judge_is_in_no_headline_and_in_the_record(tmp_path: Path):
    family = "student.facts.family=birch"
    done = synthdiv("plan", *WORDS, RELATED, family, cwd=tmp_path, code=2)
    assert "judge.models.0.headline=true: me is related to" in done.stderr
    assert "set judge.models.0.headline=false" in done.stderr
    done = synthdiv("plan", "--json", *WORDS, RELATED, family, "judge.models.0.headline=false", cwd=tmp_path)
    assert json.loads(done.stdout)["nodes"]["quality"]
