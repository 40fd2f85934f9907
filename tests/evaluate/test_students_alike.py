"""Between-student similarity: of the answers of all members of a population to the same test prompts."""

from __future__ import annotations

from itertools import pairwise

import pytest

from synthdiv.evaluate.alikeness import SourcesAlike
from synthdiv.evaluate.students_alike import StudentsAlikeSuite
from synthdiv.evaluate.suite import HEADLINE, read_scores
from synthdiv.generate.generate import Generate, Split
from synthdiv.generate.law import Family, Grade
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.study.pipeline import graph
from tests.models.small import WORLD, build
from tests.study.test_keys import cell

FIELDS_SHOWN = ("sources_alike.prefix",)


def answers(root, prompts, family, seed):
    """Answers that one toy family gives, by law."""
    law = build(root, Family(family, 4, 0.0, 0.0, WORLD, Grade()))
    how = {"sampling": Sampling(1.0, 1.0, 40), "seed": seed, "split": Split.test, "rows": 12}
    return build(root, Generate(f"family-{family}", Backend.law, **how), prompts, law)


def test_students_that_write_alike_are_few_voices(root, prompts):
    """Known truth: copies of one student are one voice, seeds of one law fewer than as many laws without an overlap."""
    stage = SourcesAlike([f"student-{number}" for number in range(3)], prefix="students/")
    made = {
        name: {score.name: score for score in read_scores(build(root, stage, *inputs).path)}
        for name, inputs in {
            "copies": [answers(root, prompts, 0, 0)] * 3,
            "seeds": [answers(root, prompts, 0, seed) for seed in range(3)],
            "laws": [answers(root, prompts, family, 0) for family in range(3)],
        }.items()
    }
    voices = [made[name]["students/ngrams/voices"].value for name in made]
    assert voices[0] == pytest.approx(1)
    assert all(one < other for one, other in pairwise(voices)), voices
    assert made["copies"]["students/ngrams/alike"].value == pytest.approx(1)
    assert made["laws"]["students/ngrams/alike"].n == 12
    assert {name for name, score in made["laws"].items() if score.role == HEADLINE} == {*StudentsAlikeSuite.headlines}


def test_all_members_of_a_round_have_one_similarity_and_no_population_has_none():
    words = ["evaluate=toy_rounds", "mix=human", "mix.rows=60", "rounds.seeds=3", "rounds.round=1"]
    for lineage in ("single", "pooled"):
        members = [graph(cell(*words, f"rounds.lineage={lineage}", f"rounds.member={member}")) for member in range(3)]
        assert len({item.suites["students_alike"].key for item in members}) == 1
        assert [node.inputs["model"].key for node in members[0].suites["students_alike"].inputs.values()] == [
            item.train.key for item in members
        ]
    assert "students_alike" not in graph(cell("evaluate=toy_rounds", "mix=human")).suites
    assert "students_alike" not in members[0].vanilla
