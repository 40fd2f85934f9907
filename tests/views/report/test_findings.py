"""The answer of a sweep: verdicts of claims, what was declared when, and what a launch can detect."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthdiv.core.types import ConfigError, Score
from synthdiv.launch import trained
from synthdiv.measures.replicates import effect
from synthdiv.study.claims import DeclaredClaim, Direction, declare
from synthdiv.views.report import findings
from synthdiv.views.report.contrasts import Contrast, contrasts
from synthdiv.views.report.cross_checks import agreement, contradictions, effects, noise, published, repeated
from synthdiv.views.report.findings import ClaimResult, answer_lines, claim_results, corrected, judged, planned
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.sections import answers
from tests.views.report.test_contrasts import Sweep, filled

CLEAR = ("multi - human", "nll")  # 3.0 against 2.5 with models that differ by .14
NAME = "eggs"


def results(sweep: Sweep, *claims: DeclaredClaim, finished: int = 0) -> list[ClaimResult]:
    declare(sweep.root / "sweeps" / NAME, claims, finished)
    return claim_results(sweep.root, NAME, sweep.arms())


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    made = filled(Sweep(tmp_path), replicates=6)
    for take in range(6):
        made.add("none", np.full(12, 6.5), take)
    return made


@pytest.mark.parametrize(
    ("direction", "margin", "verdict"),
    [
        (Direction.higher, 0.0, "shown"),
        (Direction.lower, 0.0, "the opposite is shown"),
        (Direction.higher, 0.5, "the opposite is shown"),
        (Direction.not_higher, 0.5, "shown"),
        (Direction.not_lower, 0.01, "shown"),
        (Direction.equivalent, 0.5, "shown"),
        (Direction.equivalent, 0.01, "not shown"),
    ],
)
def test_a_claim_is_judged_by_its_direction_and_a_margin_in_shares_of_human_minus_vanilla(
    sweep: Sweep, direction: Direction, margin: float, verdict: str
) -> None:
    (made,) = results(sweep, DeclaredClaim(*CLEAR, direction, margin))
    levels = {
        mix: np.mean([row.scores["nll"].value for row in sweep.rows if row.axes["mix"] == mix])
        for mix in ("human", "none")
    }
    assert made.margin == pytest.approx(margin * abs(levels["human"] - levels["none"]))
    assert (made.verdict, made.late) == (verdict, "")
    assert "MixedLM refused" in made.contrast.note, "prompts do not vary in the difference: no second opinion"
    assert math.isnan(made.power) == (direction is not Direction.equivalent)
    assert made.interval == made.contrast.effect.interval(0.9 if direction is Direction.equivalent else 0.95)


def test_a_margin_of_a_difference_to_the_vanilla_student_is_that_of_human_answers(sweep: Sweep) -> None:
    for row in sweep.rows:
        if row.axes["mix"] != "none":
            row.scores["nll-vanilla"] = dataclasses.replace(row.scores["nll"], value=row.scores["nll"].value - 6.5)
            row.origin["nll-vanilla"] = row.origin["nll"]
    claims = [DeclaredClaim("multi - human", name, Direction.lower, 0.1) for name in ("nll", "nll-vanilla")]
    one, other = results(sweep, *claims)
    assert (other.margin, other.verdict) == (pytest.approx(one.margin), one.verdict)
    sweep.rows = [row for row in sweep.rows if row.axes["mix"] != "none"]
    one = claim_results(sweep.root, NAME, sweep.arms())[0]
    assert one.verdict == "not measured"
    assert findings.NO_MARGIN in one.contrast.note


def test_holm_is_over_the_claims_declared_before_results(sweep: Sweep) -> None:
    alone = results(sweep, DeclaredClaim(*CLEAR))[0]
    p = alone.contrast.effect.p()
    assert alone.p == pytest.approx(p)
    two = results(sweep, DeclaredClaim(*CLEAR), DeclaredClaim("multi - human", "whole"))
    assert [each.p for each in two] == pytest.approx([2 * min(each.contrast.effect.p() for each in two)] * 1 + [
        max(2 * two[0].contrast.effect.p(), two[1].contrast.effect.p())], rel=1)  # fmt: skip
    late = results(sweep, DeclaredClaim(*CLEAR), finished=5)
    assert [each.late for each in late] == ["", "withdrawn after results"]
    assert late[0].p == two[0].p, "a claim that is withdrawn is still tested"


@pytest.mark.parametrize(("finished", "text", "verdict"), [
    (0, "2 claims: 1 not shown, 1 shown.", "shown"),
    (5, "2 claims, 1 of them exploratory: 1 not shown, 1 shown.", "shown, exploratory"),
])  # fmt: skip
def test_the_first_sentence_of_a_page_says_what_was_claimed_after_results(sweep, finished, text, verdict) -> None:
    declare(sweep.root / "sweeps" / NAME, [DeclaredClaim("multi - human", "whole", Direction.equivalent, 0.001)], 0)
    both = [DeclaredClaim("multi - human", "whole", Direction.equivalent, 0.001), DeclaredClaim(*CLEAR)]
    shown = answers(results(sweep, *both, finished=finished), [], Labels(sweep.arms()))
    assert shown["text"] == text
    assert [row["verdict"] for row in shown["claims"]] == ["not shown", verdict]


def test_the_opposite_is_shown_by_the_same_correction(sweep: Sweep) -> None:
    """Of many claims of nothing at most 5 % have one that is shown, on either side."""
    arm, random, any_shown = sweep.arms()[0], np.random.default_rng(0), 0
    claims = [DeclaredClaim("multi - human", str(at), Direction.lower) for at in range(10)]
    for _ in range(200):
        made = [Contrast(each.contrast, each.measure, arm, effect(random.normal(size=(1, 5)))) for each in claims]
        verdicts = {each.verdict for each in corrected([judged(*pair, "") for pair in zip(claims, made, strict=True)])}
        any_shown += bool(verdicts & {"shown", "the opposite is shown"})
    assert any_shown <= 20, "binomial, 200 of 5 %: more than 20 in .1 % of tests"


def test_a_claim_about_a_part_of_the_singles_is_described(sweep: Sweep) -> None:
    sweep.rows = [row for row in sweep.rows if row.sources != ("oak",)]
    (made,) = results(sweep, DeclaredClaim("multi - best single", "nll", Direction.lower))
    assert (made.verdict, math.isnan(made.p), made.contrast.name) == (
        "descriptive",
        True,
        "multi - single elm (1 of 2 singles)",
    )
    (line,) = answer_lines([], list(sweep.contrasts().values()), Labels(sweep.arms()))
    assert line.startswith("descriptive: multi - single elm (1 of 2 singles) (multi), nll: ")
    assert line.endswith("exploratory")


def test_a_claim_without_enough_replicates_or_values_is_not_shown(tmp_path: Path) -> None:
    few = filled(Sweep(tmp_path), replicates=2)
    made = results(few, DeclaredClaim(*CLEAR), DeclaredClaim("multi - human", "no_such_score"))
    assert [each.verdict for each in made] == ["descriptive", "not measured"]


def test_a_claim_that_no_arms_are_about_is_not_measured_and_counts_for_holm(sweep: Sweep) -> None:
    claim, other = DeclaredClaim(*CLEAR), DeclaredClaim("multi_decoding - human", "nll")
    alone, (both, absent) = results(sweep, claim)[0], results(sweep, claim, other)
    assert (absent.verdict, absent.contrast.note) == ("not measured", "no arms are compared like this")
    assert both.p == pytest.approx(2 * alone.p)
    (_, line) = answer_lines([both, absent], [], Labels(sweep.arms()))
    assert line == "not measured: multi_decoding - human, nll, higher: —; 0 models; Holm p = —"


def test_a_claim_may_be_about_two_values_of_an_axis_and_some_arms_alone(sweep: Sweep) -> None:
    for mix in ("multi", "oak"):
        for take in range(6):
            sweep.add(mix, np.full(12, 9.0 + take), take, student="large")
    axis = DeclaredClaim("student=large - student=toy", "nll", where=["mix=multi"])
    (made,) = results(sweep, axis)
    assert made.verdict == "shown"
    assert made.contrast.arm.axes["student"] == "large"


def test_the_answer_is_the_claims_or_the_primary_comparisons(sweep: Sweep) -> None:
    arms, made = sweep.arms(), list(sweep.contrasts().values())
    lines = answer_lines([], made, Labels(arms))
    assert len(lines) == 2, "each primary one on its first measure"
    assert "multi - best single (multi), nll: " in lines[0]
    assert "12 prompts × 6 models; exploratory" in lines[0]
    many = [dataclasses.replace(made[0], arm=dataclasses.replace(arms[0], key=str(at))) for at in range(400)]
    assert answer_lines([], many, Labels(arms))[20:] == ["and 380 more comparisons, on the page and in contrasts.csv"]
    claims = results(sweep, DeclaredClaim(*CLEAR), finished=4)
    (line,) = answer_lines(claims, made, Labels(arms))
    assert line.startswith("shown: multi - human (multi), nll, higher: 0.")
    assert line.endswith("added after 4 cells had results: exploratory")


def test_a_plan_says_what_claims_detect_from_a_pilot_whose_models_are_not_used_again(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims, unknown = [DeclaredClaim("multi - best single", "whole")], "unknown: name a noise-floor sweep"
    every: Any = [
        type("Record", (), {"key": f"k{at}", "arm": "a", "train": f"t{at}", "axes": {}, "seeds": {"a": at % 5, "b": b},
                         "suites": {}, "vanilla": {}})
        for b in range(5) for at in range(5 * b, 5 * b + 5)
    ]  # fmt: skip
    records = every[::6]
    assert unknown in planned(sweep.root, "pilot", claims, records)[0]
    folder = sweep.root / "sweeps" / "pilot"
    folder.mkdir(parents=True)
    (folder / "cells.jsonl").touch()
    monkeypatch.setattr(findings, "collect", lambda root, name: sweep.rows)
    (line,) = planned(sweep.root, "pilot", claims, records)
    levels = np.array([[row.scores["whole"].value for row in arm.rows] for arm in sweep.arms()[:3]])
    spread = np.mean([np.var(levels[0] - single, ddof=1) for single in levels[1:]])
    size = findings.detectable(math.sqrt(spread / 5), 4)
    assert f"higher: {size:.4g} with 5 replicates" in line, "of paired differences"
    assert planned(sweep.root, "pilot", claims, every) == [line], "25 models that share their seeds are 5 replicates"
    equal = DeclaredClaim("multi - best single", "whole", Direction.equivalent, 0.1)
    margin = findings.smallest_margin(math.sqrt(spread / 5), 4)
    assert f"equivalent: a margin of {margin:.4g} with 5" in planned(sweep.root, "pilot", [equal], records)[0]
    assert unknown in planned(sweep.root, "pilot", [DeclaredClaim("multi - human", "other")], records)[0]
    grid = [
        type("Record", (), vars(one) | {"key": f"{at} {mix} {rate}", "arm": f"{mix} {rate}",
                                        "train": f"x{at} {mix} {rate}", "axes": {"mix": mix, "train.lr": rate}})
        for at, one in enumerate(records) for mix in ("multi", "single") for rate in (1, 2, 3)
    ]  # fmt: skip
    size = findings.detectable(math.sqrt(spread / 5), 4, 0.05 / 4)
    other = DeclaredClaim("multi - human", "nll")
    assert (
        f"higher: {size:.4g} with 5 replicates, 80 % power and Holm over 4 comparisons"
        in planned(sweep.root, "pilot", [*claims, other], grid)[0]
    ), "one for each of three rates, and one for the claim about nothing"
    pilot = type("Record", (), {"train": "t6"})
    monkeypatch.setattr(findings.Ledger, "cells", lambda ledger: [pilot])
    with pytest.raises(ConfigError, match=r"report.pilot=pilot: 1 of its models are in this sweep too"):
        planned(sweep.root, "pilot", claims, records)


def test_contradicting_measures_are_listed(sweep: Sweep) -> None:
    rows = contradictions(list(sweep.contrasts().values()), Labels(sweep.arms()))
    assert {"contrast": "multi - human", "arm": "multi", "better by": "whole", "worse by": "nll"} in rows
    (one,) = agreement(sweep.arms(), ["nll", "whole"])
    assert one["rank correlation"] == pytest.approx(-1), "turned so that higher is better"


def test_the_interval_of_an_agreement_counts_arms_that_have_both_measures(sweep: Sweep) -> None:
    for row in sweep.rows:
        if row.axes["mix"] == "human":
            del row.scores["whole"]
    (one,) = agreement(sweep.arms(), ["nll", "whole"])
    assert one["arms"] == len(sweep.arms()) - 1
    for row in sweep.rows:
        if row.axes["mix"] == "none":
            row.scores["whole"] = Score("whole", math.inf, 9, higher_is_better=True)
    (one,) = agreement(sweep.arms(), ["nll", "whole"])
    assert one["arms"] == len(sweep.arms()) - 2, "infinite values have no rank here"


def test_a_launch_computes_no_more_comparisons_than_it_shows(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "collect", lambda root, name: sweep.rows)
    every = findings.answer(sweep.root, NAME)
    assert len(every) > 1
    monkeypatch.setattr(findings, "LINES", 1)
    monkeypatch.setattr(findings, "contrasts", lambda root, arms, names, chosen: made.append(len(chosen)) or contrasts(
        root, arms, names, chosen
    ))  # fmt: skip
    made: list[int] = []
    assert findings.answer(sweep.root, NAME) == [
        every[0], f"and {len(every) - 1} more comparisons, on the page and in contrasts.csv",
    ]  # fmt: skip
    assert made == [1]


def test_a_launch_lists_comparisons_in_the_order_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order the cells of two students were launched."""
    sweep = Sweep(tmp_path)
    for student, mix, take in itertools.product(("large", "small"), ("multi", "oak", "elm", "human"), range(3)):
        level = {"multi": 3.0, "human": 2.5}.get(mix, 3.2)
        sweep.add(mix, level + take / 9 + np.arange(6), take, likelihood=np.arange(6), student=student)
    monkeypatch.setattr(findings, "collect", lambda root, name: sweep.rows)
    every = findings.answer(sweep.root, NAME)
    assert len(every) > 2
    sweep.rows.reverse()
    assert findings.answer(sweep.root, NAME) == every


def test_where_nothing_leads_few_comparisons_are_counted_and_many_are_on_the_page(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.rows = [row for row in sweep.rows if row.axes["mix"] in ("human", "single")]
    monkeypatch.setattr(findings, "collect", lambda root, name: sweep.rows)
    assert "; others, exploratory: " in findings.answer(sweep.root, NAME)[0]
    monkeypatch.setattr(findings, "MOST", 0)
    assert findings.answer(sweep.root, NAME)[0].endswith("others are on the page")


def test_two_arms_have_an_answer_where_a_claim_is_declared(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.rows = [row for row in sweep.rows if row.axes["mix"] in ("multi", "human")]
    monkeypatch.setattr(findings, "collect", lambda root, name: sweep.rows)
    for row in sweep.rows:
        row.scores["nll"] = dataclasses.replace(row.scores["nll"], role="headline")
    others = f"no primary comparison: {findings.NOT_COMPARED}; others, exploratory: 2 shown"
    assert findings.answer(sweep.root, NAME) == [others], "with human answers, and these with the mean of synthetic"
    declare(sweep.root / "sweeps" / NAME, [DeclaredClaim(*CLEAR)], 0)
    assert findings.answer(sweep.root, NAME)[0].startswith("shown: multi - human")


def test_the_end_of_a_launch_corrects_as_the_page_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = filled(Sweep(tmp_path), seed=5)
    for row in sweep.rows:
        row.scores.update({name: dataclasses.replace(score, role="headline") for name, score in row.scores.items()})
    monkeypatch.setattr(findings, "collect", lambda root, name: sweep.rows)
    best = sweep.contrasts()["multi - best single", "nll"]
    assert best.effect.p() < 0.05 < best.adjusted
    assert findings.answer(sweep.root, NAME)[0].startswith("not shown: multi - best single (multi), nll")


def test_models_of_an_earlier_launch_are_results_before_their_suites_are_finished(study: Any) -> None:
    study.cell("human", 1.0, build="some")
    study.cell("multi", 1.0, build="none")
    assert trained(study.root, study.ledger.cells()) == 1


def test_tables_beside_the_comparisons(sweep: Sweep) -> None:
    for take in range(6):
        for mix in ("multi", "oak", "elm"):
            sweep.add(mix, np.random.default_rng(take).normal(5, 1, 12), take, student="large")
    arms, measures = sweep.arms(), ["nll", "whole"]
    labels = Labels(arms)
    actual = {row["effect"]: row for row in effects(arms, measures, labels) if row["measure"] == "nll"}
    assert list(actual) == ["mix: multi − single", "student: large − toy", "mix: multi − single × student: large − toy"]
    spread = next(row for row in noise(arms, measures, labels) if row["arm"].startswith("multi"))
    assert (spread["seeds"], spread["models"]) == ("train.seed generators.seed", 6)
    assert 0 <= spread["false positives"] <= 1, spread
    assert {row["measure"] for row in repeated(sweep.root, arms, measures, labels)} == {"nll"}, (
        "it has values of prompts"
    )
    first, *rest = published(sweep.root, arms, measures, labels)
    assert first["test"] == "Kruskal–Wallis"
    pairs = [row["arms"] for row in rest if row["test"] == "Mann–Whitney"]
    assert len(pairs) == 10 + 3, "of five arms of one student and three of another, never of both"
    assert sum("large" in pair for pair in pairs) == 3


def test_published_tests_are_of_each_group_that_differs_in_who_writes_alone(tmp_path: Path) -> None:
    """The real share of human answers follows from their mix; each group has its own pairs and its own correction."""
    sweep = Sweep(tmp_path)
    for mix, share in (("human", 1), ("multi", 0), ("oak", 0), ("multi", 0.5)):
        sweep.add(mix, np.random.default_rng(len(sweep.rows)).normal(size=12), real_share=share)
    arms = sweep.arms()
    rows = published(sweep.root, arms, ["nll"], Labels(arms))
    groups = {
        row["group"]: [(each["test"], each["tests"]) for each in rows if each["group"] == row["group"]] for row in rows
    }
    assert sorted(groups.values(), key=len) == [
        [("Kruskal–Wallis", 1), ("Mann–Whitney", 1)], [("Kruskal–Wallis", 1), *[("Mann–Whitney", 3)] * 3],
    ]  # fmt: skip
    assert sum(row["arms"].startswith("human") for row in rows if row["test"] == "Mann–Whitney") == 3


def test_sources_in_different_shares_are_levels_of_source_diversity_of_their_own(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    for student, take in itertools.product(("toy", "large"), range(3)):
        noise = np.random.default_rng([take, len(student)]).normal(0, 0.01, 4)
        sweep.add("oak", 5 + noise, take, student=student, **{"mix.weights": "n/a"})
        for weights, level in (("[1,1]", 5), ("[3,1]", 0)):
            sweep.add("multi", level + noise[::-1], take, student=student, **{"mix.weights": weights})
    rows = {row["effect"]: row["df"] for row in effects(sweep.arms(), ["nll"], Labels(sweep.arms()))}
    assert rows["mix"] == 2, "single, and each of the two mixtures"


def test_axes_that_always_change_together_are_one_factor(tmp_path: Path) -> None:
    """Zipped axes: no cell tells them apart, and each of their own would be a list of what cannot be estimated."""
    sweep = Sweep(tmp_path)
    for (mix, grade), take in itertools.product(itertools.product(("multi", "oak"), ("0", "1")), range(3)):
        value = np.random.default_rng([take, len(sweep.rows)]).normal()
        sweep.add(mix, [value], take, **{"generators.grade.tail": f"t{grade}", "generators.grade.wrong": grade})
    rows = effects(sweep.arms(), ["nll"], Labels(sweep.arms()))
    grades = "generators.grade.tail, generators.grade.wrong: t0, 0 − t1, 1"
    assert {row["effect"] for row in rows} == {"mix: multi − single", grades, f"mix: multi − single × {grades}"}
    assert not any(row["note"] for row in rows)


def test_replicates_of_a_factorial_are_those_with_equal_seeds(tmp_path: Path) -> None:
    """Two arms of the large student have three replicates too, but others."""
    for last, df in ((2, 2), (9, 1)):
        sweep = Sweep(tmp_path / str(last))
        for (mix, student), take in itertools.product(itertools.product(("multi", "oak"), ("toy", "large")), range(3)):
            value = np.random.default_rng([take, len(sweep.rows)]).normal()
            sweep.add(mix, [value], last if (take, student) == (2, "large") else take, student=student)
        rows = effects(sweep.arms(), ["nll"], Labels(sweep.arms()))
        assert sum(row["df"] for row in rows if not row["note"]) == df + 1 * (last == 2), rows


def test_the_noise_floor_has_each_kind_of_seed_alone(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    values = {(0, 0): 1.0, (1, 1): 2.0, (2, 2): 4.0, (1, 0): 1.5, (2, 0): 2.5, (0, 1): 1.0, (0, 2): 1.25}
    for (train, generators), value in values.items():
        sweep.add("multi", [value, value + 1], seeds={"train.seed": train, "generators.seed": generators})
    rows = {row["seeds"]: row["sd"] for row in noise(sweep.arms(), ["nll"], Labels(sweep.arms()))}
    assert rows == {
        "train.seed generators.seed": pytest.approx(np.std([1, 2, 4], ddof=1)),
        "train.seed": pytest.approx(np.std([1, 1.5, 2.5], ddof=1)),
        "generators.seed": pytest.approx(np.std([1, 1, 1.25], ddof=1)),
    }
