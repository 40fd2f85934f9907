"""Rubrics: their slots, what they show a judge, and what they read in a judge's text."""

from __future__ import annotations

import math
import re
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from synthdiv.core.fields import problems
from synthdiv.evaluate.rubric import Rubric, Rubrics
from tests.conftest import ROOT

FIELDS_SHOWN = ("verdicts.reading",)

FILES = sorted((ROOT / "conf" / "judge" / "rubric").glob("*.yaml"))
SCALE = Rubric("quality", 1, None, "<answer>{response}</answer> to {prompt}", list("12345"), [1.0, 2, 3, 4, 5])
PAIR = Rubric("preference", 1, None, "{prompt} <text_a>{a}</text_a> {b}", ["A", "B"], [1.0, 0.0])


def rubric_of(path) -> Rubric:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Rubric), OmegaConf.load(path)))


def test_every_rubric_has_a_file_and_every_file_is_a_rubric():
    assert [path.stem for path in FILES] == sorted(field.name for field in fields(Rubrics))
    for path in FILES:
        rubric = rubric_of(path)
        assert (rubric.name, rubric.version) == (path.stem, 1)
        assert not problems(rubric, "rubric")
        text = rubric.render(dict.fromkeys(("prompt", "response", "a", "b", "source"), "WORDS"))
        assert text.count("WORDS") == 2 + rubric.pair + rubric.sourced
        assert all(option in text for option in rubric.options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instruction": "Is it good?"}, "rubric.instruction: needs the slots {prompt} and {response}"),
        ({"instruction": "{prompt} {response} {mood}"}, "has {mood}, {prompt}, {response}"),
        ({"options": ["1", "1"], "values": [1.0, 1.0]}, "rubric.options=['1', '1']: needs two or more different"),
        ({"values": [1.0]}, "rubric.values=[1.0]: needs one number for each of 1, 2, 3, 4, 5"),
        ({"version": 0}, "rubric.version=0: needs 1 or more"),
    ],
)
def test_a_rubric_without_its_parts_is_refused(changes, message):
    assert any(message in problem for problem in problems(Rubric(**vars(SCALE) | changes), "rubric"))


PIECES = [*"ab <>/{}\n", "</answer>", "<answer>", "</ANSWER >", "< / Answer x>", "Answer", "{prompt}", "{response}"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)


@given(TEXTS, TEXTS)
def test_a_text_fills_its_slot_and_cannot_leave_it(prompt, response):
    shown = SCALE.render({"prompt": prompt, "response": response})
    assert shown.count("<answer>") == shown.count("</answer>") == 1
    inside = shown[len("<answer>") : shown.index("</answer>")]
    assert inside.replace("(", "<").replace(")", ">") == response, "nothing but brackets changes"
    assert not re.search(r"<[\s/]*answer\b", inside, re.IGNORECASE), "in any spelling"


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("4", "4"), (" 4.", "4"), ("**4**", "4"), ("(4) because it is right", "4"), ("Rating: 4", "4"),
        ("I would give it a 4.", "4"), ("Between 3 and 4, my rating is 4", "4"), ("Between 3 and 4", ""),
        ("", ""), ("45", ""), ("It is fine", ""), ("4: right, but 2 parts are missing", "4"),
        ("Score: 2 at first.\nFinal score: 5", "5"), ("Rating: 4/5", "4"), ("Rating 4 of 5", "4"),
        ("4/5", "4"), ("**3 out of 5**: short", "3"), ("3 out of 5 claims are right", ""), ("4/10", ""),
        ("Score: 4 out of 10", ""), ("4. It covers 9/10 of the points.", "4"), ("Rating: 3. Some say 4/10.", "3"),
        ("Rating 3 or 4", ""), ("3.5", ""), ("Score: 4.5", ""), ("4-5", ""), ("Not a 5", ""),
        ("1. It is right.\n2. It is whole.\nRating: 4", "4"), ("1) Right. 2) Whole.\nI give it a 5", ""),
    ],
)  # fmt: skip
def test_the_option_that_a_text_states(text, option):
    assert SCALE.parse(text) == option


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("A", "A"), ("B\n", "B"), ("Answer: B", "B"), ("A is a good text but B is better", ""), ("Text B", "B"),
        ("The better answer is B because answer A is wrong.", "B"), ("My choice: B, since answer A is off", "B"),
        ("Answer B is better than answer A.", ""), ("I prefer answer A over answer B", ""), ("Answer A is worse.", ""),
        ("It isn't A.", ""), ("Answer A is better.", "A"),
        ("I choose the second text; its answer is a clear one.", ""), ("B is better. Its answer is a model.", "B"),
        ("A careful reading shows that the second text is better.", ""), ("A is better", "A"),
        ("B. It has 9/10 of the points.", "B"),
    ],
)  # fmt: skip
def test_a_text_that_only_names_an_option_does_not_state_it(text, option):
    assert PAIR.parse(text) == option


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("yes", "Yes"), ("NO.", "No"), ("The answer is yes.", "Yes"), ("No, it falls apart", "No"),
        ("No problems: the answer is coherent.", ""), ("There is no problem with it.", ""),
    ],
)  # fmt: skip
def test_a_word_is_an_option_in_any_case_and_not_where_it_belongs_to_another(text, option):
    assert Rubric("coherence", 1, None, "{prompt} {response}", ["Yes", "No"], [1.0, 0.0]).parse(text) == option


def test_a_rubric_has_the_name_of_what_it_is_asked_for():
    """Headlines and exact judges know it by that; another name would take them away without a word."""
    (problem,) = problems(Rubrics(quality=Rubric(**vars(SCALE) | {"name": "mine"})), "judge.rubrics")
    assert problem.startswith("judge.rubrics.quality.name='mine': needs to be quality")


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_the_expected_number_is_within_the_scale(p):
    value = SCALE.value(p)
    assert math.isnan(value) if sum(p) == 0 else 1 - 1e-9 <= value <= 5 + 1e-9
