"""Cells that are compared train on equally much, or say that they do not."""

from __future__ import annotations

import pytest

from synthdiv.core.types import ConfigError
from tests.conftest import TINY
from tests.views.test_plan import frozen

MIXED = {"mix": "human,single", "train.seed": "0,1"}


def test_arms_with_other_rows_are_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        frozen(*TINY, root=tmp_path, zip=[{"mix": "human,single", "mix.rows": "24,48"}], params={"train.seed": "0,1"})
    (problem,) = caught.value.problems
    assert "mix=human mix.rows=24` trains 1 epochs of 24 rows" in problem
    assert "mix=single mix.rows=48` trains 1 epochs of 48 rows" in problem
    assert "report.unmatched=true" in problem


@pytest.mark.parametrize("also", [{"train.epochs": "2", "mix": "single"}, {"mix.rows": "24", "mix": "human"}])
def test_a_further_grid_of_one_arm_is_refused_too(also, tmp_path):
    with pytest.raises(ConfigError, match="budgets of one comparison do not match"):
        frozen(*TINY[:6], root=tmp_path, params=MIXED, also=[also])
    frozen(*TINY[:6], "report.unmatched=true", root=tmp_path, params=MIXED, also=[also])


@pytest.mark.parametrize("other", [{"train.stop": "early"}, {"train.overlong": "drop", "train.left_out": "0.3"}])
def test_one_arm_that_may_end_before_or_leave_rows_out_is_refused(other, tmp_path):
    also = [{"mix": "single"} | other]
    result = r"mix=single.*trains (stops early|4 epochs of \d+ rows less up to 30\.0% of)"
    with pytest.raises(ConfigError, match=result):
        frozen(*TINY[:6], root=tmp_path, params={"mix": "human", "train.seed": "0,1"}, also=also)
    if "train.stop" in other:  # crossed with every arm it is a choice that is compared
        frozen(*TINY[:6], root=tmp_path, params=MIXED | {"train.stop": "budget,early"})


def test_arms_that_leave_out_other_prompts_are_refused(tmp_path):
    lists = {"mix": "human,single", "mix.leave_out": "[toy-1],[toy-2]"}
    with pytest.raises(ConfigError, match=r"epochs of \d+ rows, without toy-1 and .*, without toy-2. .*mix\.leave_out"):
        frozen(*TINY[:6], root=tmp_path, zip=[lists], params={"train.seed": "0,1"})
    frozen(*TINY[:6], "mix.leave_out=[toy-1]", root=tmp_path, params=MIXED)


def test_a_filtered_arm_is_matched_by_steps_alone(tmp_path):
    """How many rows a filter removes is known only when they are written, in each arm another number."""
    words, params = TINY[:6], {"mix": "human,single"}
    for filters in ("filter=none,refusals", "duplicates=exact", "min_words=2", "max_words=9", "overlap=remove"):
        key, values = f"mix.{filters}".split("=")
        with pytest.raises(
            ConfigError, match=r"answers of|without (refusals|exact|overlap).* train.match=rows matches"
        ):
            frozen(*words, root=tmp_path, params=params | {key: values})
    params["mix.duplicates"] = "exact"
    frozen(*words, "report.unmatched=true", root=tmp_path, params=params)
    frozen(*words, "train.match=steps", "train.budget=2", root=tmp_path, params=params)
    frozen(*words, "mix.rows=24", "mix.spare=0.5", root=tmp_path, params=params)  # further prompts take their places


@pytest.mark.parametrize("mix", ["selected", "random", "paraphrased", "topics"])
@pytest.mark.parametrize("field", ["mix.spare=0.5", "mix.duplicates=exact"])
def test_a_level_has_no_filter_that_depends_on_it(mix, field, tmp_path):
    words = [*TINY[:6], f"mix={mix}", "generators=toy", "mix.rows=24", "mix.min_words=1", field]
    if field.startswith("mix.spare"):  # from a filtered pool, or written; human rows are replaced
        frozen(*words, "mix.real_share=0.5", root=tmp_path)
        if mix in ("selected", "random"):
            frozen(*words, "mix.real_rows=6", root=tmp_path)
        return
    with pytest.raises(ConfigError, match=rf"{field}: .* level of diversity"):
        frozen("train.match=steps", "train.budget=2", *words, root=tmp_path)


@pytest.mark.parametrize(
    "params",
    [
        {"mix.rows": "12,24,48"},  # every arm with every budget
        {"train.epochs": "1,2", "mix.rows": "12,24"},
        {"mix.rotation": "0,1", "generators.seed": "0,1"},  # replicates, no budgets
        {"student": "toy_small,toy_large"},
    ],
)
def test_a_budget_sweep_over_every_arm_is_matched(params, tmp_path):
    frozen(*TINY[:6], root=tmp_path, params=MIXED | params)


def test_other_students_and_recipes_are_no_comparison(tmp_path):
    for other in ({"student": "toy_large"}, {"train.lr": "1e-5"}, {"prompts.seed": "7"}):
        frozen(*TINY[:6], root=tmp_path, params=MIXED, also=[{"mix": "human", "mix.rows": "24"} | other])


def test_equal_steps_match_whatever_the_rows(tmp_path):
    steps = ["train.match=steps", "train.budget=5"]
    frozen(*TINY, *steps, root=tmp_path, zip=[{"mix": "human,single", "mix.rows": "24,48"}])


def test_a_launch_refuses_what_a_plan_refuses(typed):
    zips = 'hydra.sweeper.zip=[{mix:"human,single",mix.rows:"24,48"}]'
    for verb in ([], ["plan"]):
        result = typed(*verb, "-m", *TINY, zips)
        assert result.code == 2
        assert "budgets of one comparison do not match" in result.err


def test_a_curve_of_real_rows_may_go_below_the_real_rows_of_the_mixes(tmp_path):
    """A human mix has no other rows."""
    words = [*TINY[:6], "report.unmatched=true", "mix.real_rows=12"]
    frozen(
        *words,
        root=tmp_path,
        params={"mix.rows": "24", "mix": "human,single"},
        also=[{"mix.rows": "6", "mix": "human"}],
    )


def test_a_regime_that_grows_declares_that_its_budget_varies(typed):
    done = typed("plan", "-m", "experiment=scarce_labels", "report.unmatched=false")
    assert done.code == 2
    assert "budgets of one comparison do not match" in done.err
