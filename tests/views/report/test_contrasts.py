"""Comparisons of arms: who is compared with whom, on which prompts and replicates, and what an added arm changes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synthdiv.core.types import Score
from synthdiv.evaluate.suite import item, write_suite
from synthdiv.measures.replicates import replicate_error
from synthdiv.study.claims import DeclaredClaim, Direction, declare
from synthdiv.views.report.arms import Arm, arms_of, independent
from synthdiv.views.report.collect import CellRow
from synthdiv.views.report.comparisons import Comparison, comparisons
from synthdiv.views.report.contrasts import EXCESS, Contrast, contrast, contrasts
from synthdiv.views.report.findings import claim_results
from synthdiv.views.report.pools import SweepArms
from synthdiv.views.report.shared_replicates import matched

SOURCES = {"multi": ("oak", "elm"), "oak": ("oak",), "elm": ("elm",)}


class Sweep:
    """Rows of a sweep whose suites are files; each row has values per prompt, and a whole-set measure."""

    def __init__(self, root: Path):
        self.root, self.rows = root, list[CellRow]()

    def add(self, mix: str, values: Iterable[float], /, seed: int = 0, name: str = "nll", likelihood: Any = None,
            seeds: Any = None, launch: str = "1", first_prompt: int = 0, **axes: Any) -> CellRow:  # fmt: skip
        key = f"{len(self.rows):04d}"
        arm = mix if mix in ("human", "none", "multi") else "single"
        axes = {"mix": arm, "source": mix if arm == "single" else "n/a", "generators": "small", "student": "toy"} | axes
        items = [item(f"p{at + first_prompt}", name, value) for at, value in enumerate(values)]
        scores = [Score(name, float(np.mean([each["value"] for each in items])), len(items), higher_is_better=False)]
        scores.append(Score("whole", scores[0].value * 2, 9, higher_is_better=True, least=0))
        path = self.root / "artifacts" / "suite" / key
        path.mkdir(parents=True)
        write_suite(path, scores, items)
        (path / "manifest.json").write_text('{"files": {}}')
        if likelihood is not None:
            rows = [{"id": f"p{at}", "nll": -value} for at, value in enumerate(likelihood)]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path / "likelihood.parquet")
        seeds = seeds or {"train.seed": seed, "generators.seed": "n/a" if arm == "human" else seed}
        row = CellRow(
            key, repr(sorted(axes.items())), axes, seeds, f"m{key}", "done", "", {each.name: each for each in scores},
            launch=launch, origin={each.name: key for each in scores}, likelihood=key, sources=SOURCES.get(mix, ()),
        )  # fmt: skip
        self.rows.append(row)
        return row

    def arms(self) -> list[Arm]:
        return arms_of(self.rows)

    def contrasts(self, *measures: str) -> dict[tuple[str, str], Contrast]:
        made = contrasts(self.root, SweepArms(self.arms()), measures or ("nll", "whole"))
        return {(each.name, each.measure): each for each in made}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def filled(sweep: Sweep, replicates: int = 4, prompts: int = 12, seed: int = 0) -> Sweep:
    """Multi, its two singles, human; every model has an effect of its own, every prompt too."""
    random = np.random.default_rng(seed)
    hard = random.normal(size=prompts)
    for mix, level in (("multi", 3.0), ("oak", 3.2), ("elm", 3.5), ("human", 2.5)):
        for take in range(replicates):
            values = level + hard + random.normal(0, 0.1) + random.normal(0, 0.2, prompts)
            sweep.add(mix, values, take, likelihood=-values)
    return sweep


def test_values_of_prompts_are_paired_and_whole_sets_compared_by_replicate(sweep: Sweep) -> None:
    for row in filled(sweep).rows:
        row.scores["nll"] = replace(row.scores["nll"], least=0, most=99)
    made = sweep.contrasts()
    one, whole = made["multi - human", "nll"], made["multi - human", "whole"]
    multi, human = (
        [row.scores["nll"].value for row in sweep.rows if row.axes["mix"] == mix] for mix in ("multi", "human")
    )
    assert one.effect.value == pytest.approx(np.mean(multi) - np.mean(human))
    assert (one.effect.n, one.effect.replicates, one.effect.pooled) == (12, 4, False)
    assert (whole.effect.n, whole.effect.value) == (0, pytest.approx(2 * one.effect.value))
    oracle = stats.ttest_rel(2 * np.array(multi), 2 * np.array(human))
    assert whole.effect.p() == pytest.approx(oracle.pvalue)
    assert len(one.keys) == 8, "every number names the suites it comes from"
    assert one.seeds == ("train.seed", "generators.seed")
    assert (one.effect.limit, whole.effect.limit) == (99, math.inf), "differences of a measure from 0 to 99"
    low, high = whole.ratio[1:]
    assert low < whole.ratio[0] < high
    assert whole.ratio[0] == pytest.approx(math.exp(np.mean(np.log(np.array(multi) / np.array(human)))))


def test_the_best_single_is_chosen_on_other_replicates(sweep: Sweep) -> None:
    for mix, levels in {"multi": (1, 1, 1), "oak": (2, 2, 9), "elm": (3, 3, 0)}.items():
        for take, level in enumerate(levels):
            sweep.add(mix, [level, level + 1.0], take)
    best = sweep.contrasts("nll")["multi - best single", "nll"]
    # without replicate 2 oak is the best: its 9 counts there; without 0 or 1 elm's mean is lower
    assert best.effect.value == pytest.approx(np.mean([1 - 3, 1 - 3, 1 - 9]))


def test_a_mixture_of_singles_has_no_excess_over_itself(sweep: Sweep) -> None:
    values = np.random.default_rng(1).normal(-3, 1, 30)
    for mix in ("multi", "oak", "elm"):
        for take in range(4):
            sweep.add(mix, values, take, likelihood=values)
    excess = sweep.contrasts()["multi - mixture of singles", EXCESS]
    assert excess.effect.value == pytest.approx(0, abs=1e-12)
    assert (excess.effect.n, excess.unit) == (30, "nats/answer")


def test_an_excess_over_more_singles_than_models_is_not_shown_to_be_worse(sweep: Sweep) -> None:
    random = np.random.default_rng(1)
    for mix, level in (("multi", -5), ("oak", -3), ("elm", -3), ("fir", -3)):
        for take in range(3):
            row = sweep.add(mix, [1.0], take, likelihood=random.normal(level, 0.01, 30))
            sources = ("oak", "elm", "fir") if mix == "multi" else (mix,)
            sweep.rows[-1] = replace(row, sources=sources)
    excess = sweep.contrasts()["multi - mixture of singles", EXCESS]
    low, _ = excess.effect.interval()
    assert (low > 1, excess.verdict, excess.effect.p()) == (True, "not shown", 1)
    assert "at most this: 2 models of the arm for 3 singles" in excess.note


def test_arms_with_different_prompts_are_paired_on_the_overlap(sweep: Sweep) -> None:
    for take in range(3):
        sweep.add("multi", np.arange(10.0) + 1 + take, take)
        sweep.add("human", np.arange(10.0), take, first_prompt=4)
    one = sweep.contrasts("nll")["multi - human", "nll"]
    assert one.effect.n == 6
    assert one.effect.value == pytest.approx(4 + 1 + 1), "p4 is 4 + 1 + take there and 0 here"


def test_arms_that_share_few_prompts_are_compared_by_their_scores(sweep: Sweep) -> None:
    """Few prompts are not those of either arm: rows that are selected at two levels have hardly any in common."""
    for take in range(3):
        sweep.add("multi", np.arange(10.0) + 1 + take, take)
        sweep.add("human", np.arange(10.0), take, first_prompt=6)
    one = sweep.contrasts("nll")["multi - human", "nll"]
    assert (one.effect.n, one.effect.value) == (0, pytest.approx(1 + 1))


def test_prompts_that_change_with_the_replicate_are_part_of_it(sweep: Sweep) -> None:
    random = np.random.default_rng(0)
    for take in range(4):
        for mix in ("multi", "human"):
            sweep.add(mix, random.normal(size=8), take, first_prompt=100 * take)
    one = sweep.contrasts("nll")["multi - human", "nll"]
    pairs = np.array(
        [[row.scores["nll"].value for row in sweep.rows if row.axes["mix"] == mix] for mix in ("multi", "human")]
    )
    assert one.effect.n == 8
    assert one.effect.p() == pytest.approx(stats.ttest_rel(*pairs).pvalue)


def test_fewer_than_three_replicates_are_described(sweep: Sweep) -> None:
    one = filled(sweep, replicates=2).contrasts("nll")["multi - human", "nll"]
    assert one.verdict == "descriptive"
    assert one.prompts[0] < one.effect.value < one.prompts[1], "these models, not the method"
    assert math.isnan(one.effect.interval()[0])
    assert "fewer than 3" in one.note


def test_a_score_without_a_value_leaves_out_its_replicate_in_every_arm_and_says_why(sweep: Sweep) -> None:
    filled(sweep)
    sweep.rows[0].scores["nll"] = Score("nll", math.nan, 0, note="too few words")
    one = sweep.contrasts("nll")["multi - human", "nll"]
    assert (one.effect.replicates, one.note) == (3, "too few words")
    several = sweep.contrasts("nll")["multi - mean of singles", "nll"]
    assert (several.effect.replicates, several.effect.pooled, several.effect.df) == (3, True, 4)


def test_models_that_share_a_seed_are_not_independent(sweep: Sweep) -> None:
    joint = [sweep.add("multi", [1.0], seeds={"train.seed": at, "generators.seed": at}) for at in range(3)]
    for at in (1, 2):
        sweep.add("multi", [1.0], seeds={"train.seed": at, "generators.seed": 0})
    assert independent(sweep.rows) == joint


def test_replicates_are_matched_by_the_seeds_that_apply_to_both_arms(sweep: Sweep) -> None:
    for take in range(3):
        sweep.add("multi", [1.0], take)
        sweep.add("human", [1.0], take)
    sweep.add("none", [5.0], seeds={"train.seed": "n/a", "generators.seed": "n/a"})
    multi, human, vanilla = sweep.arms()
    pairs = matched([multi, human])
    assert [[row.seeds["train.seed"] for row in pair] for pair in pairs] == [[0, 0], [1, 1], [2, 2]]
    assert len(matched([human, vanilla])) == 3, "the vanilla student is the same in each"
    assert len(matched([human, multi, vanilla])) == 3


def test_arms_are_compared_only_where_all_axes_are_equal(sweep: Sweep) -> None:
    for generators, student in (("small", "a"), ("large", "a"), ("small", "b")):
        for mix in ("multi", "oak", "elm"):
            for take in range(3):
                sweep.add(mix, [1.0 * take, 2.0], take, generators=generators, student=student)
    best = [
        each for each in contrasts(sweep.root, SweepArms(sweep.arms()), ["nll"]) if each.name == "multi - best single"
    ]
    assert sorted((each.arm.axes["generators"], each.arm.axes["student"]) for each in best) == [
        ("large", "a"), ("small", "a"), ("small", "b")]  # fmt: skip


@pytest.mark.parametrize(("axis", "count"), [("mix.level", 1), ("mix.diversity.by", 1), ("mix.min_words", 0)])
def test_how_sources_write_is_no_axis_of_human_answers_launched_without_it(sweep: Sweep, axis: str, count: int) -> None:
    sweep.add("multi", [1.0, 2.0], **{axis: 0.5})
    sweep.add("human", [1.0, 2.0])
    assert sum(each.contrast == "multi - human" for each in comparisons(sweep.arms())) == count


@pytest.mark.parametrize(
    "axis", ["real_share", "mix.level", "mix.diversity.by", "mix.real_rows", "mix.temperatures", "rounds.round", "rows"]
)
def test_only_human_and_vanilla_arms_differ_in_an_axis_beside_the_sources(sweep: Sweep, axis: str) -> None:
    for mix, values in {
        "multi": (0, 0.5),
        "oak": (0, 0.5),
        "elm": (0, 0.5),
        "human": (1 if axis == "real_share" else "n/a",),
    }.items():
        for value in values:
            for take in range(3):
                sweep.add(mix, [1.0 + take, 2.0], take, **{axis: value})
    made = list(comparisons(sweep.arms()))
    of_singles = [each for each in made if each.contrast == "multi - best single"]
    assert [[one.axes[axis] for one in each.all_arms] for each in of_singles] == [[0] * 3, [0.5] * 3]
    assert sum(each.contrast == "multi - human" for each in made) == 2


@pytest.mark.parametrize("finite", [("oak",), ("oak", "elm")])
def test_a_part_of_the_singles_is_no_best_mixture_or_mean_of_them(sweep: Sweep, finite: tuple[str, ...]) -> None:
    for mix, level in {"multi": 1.0, **dict.fromkeys(finite, 9.0), "human": 1.0}.items():
        for take in range(4):
            values = level + np.random.default_rng([take, len(sweep.rows)]).normal(0, 0.01, 12)
            row = sweep.add(mix, values, take, likelihood=-values)
            if mix == "multi":
                sweep.rows[-1] = replace(row, sources=("oak", "elm", "ash"))
    made = [each for each in sweep.contrasts("nll").values() if each.part]
    part = f"{len(finite)} of 3 singles"
    names = [f"multi - {name} ({part})" for name in ("best single", "mixture of singles", "mean of singles")]
    assert [each.name for each in made] == ([f"multi - single oak ({part})"] if len(finite) == 1 else names)
    assert {each.verdict for each in made} == {"descriptive"}
    assert all(each.effect.p() < 0.001 and each.note.startswith(part) for each in made[:1])
    assert [each.rank < 2 for each in made] == [True, True, False][: len(made)], "it is shown, under its name"
    assert not any(each.rank == 0 for each in made)


@pytest.mark.parametrize("where", [0, 4])
def test_an_infinite_score_is_not_left_out_of_a_comparison(sweep: Sweep, where: int) -> None:
    filled(sweep)
    sweep.rows[where].scores["nll"] = Score("nll", math.inf, 3, note="lost a word")
    for name in ("multi - best single", "multi - mean of singles"):
        made = sweep.contrasts("nll")[name, "nll"]
        assert math.isnan(made.effect.p())
        assert made.note == f"no test: infinite in 1 of 4 models of {'single oak' if where else 'multi'}; lost a word"


@pytest.mark.parametrize("higher", [False, True])
def test_the_p_of_the_best_single_is_that_of_every_single(sweep: Sweep, higher: bool) -> None:
    made = filled(sweep).contrasts()["multi - best single", "whole" if higher else "nll"].effect
    each = [part.one_sided() for part in made.parts]
    better, worse = max(pair[higher] for pair in each), min(1, 2 * min(pair[not higher] for pair in each))
    assert made.one_sided() == ((worse, better) if higher else (better, worse))
    assert made.p() == min(1, 2 * min(better, worse))
    multi, oak = (
        [row.scores["nll"].value for row in sweep.rows if row.sources == SOURCES[mix]] for mix in ("multi", "oak")
    )
    assert made.parts[0].value == pytest.approx((1 + higher) * (np.mean(multi) - np.mean(oak)))


def test_an_error_is_pooled_with_that_of_the_compared_arms(sweep: Sweep) -> None:
    """One model of an arm is missing: its arm stays in the pool, with the replicates of the comparison."""
    filled(sweep, replicates=6)
    sweep.rows = [row for row in sweep.rows if row.key != "0006"]  # a model of oak
    made = sweep.contrasts("whole")["multi - mean of singles", "whole"].effect
    values = np.array([[row.scores["whole"].value for row in sweep.rows
                        if row.sources == SOURCES[mix] and row.seeds["train.seed"]] for mix in SOURCES])  # fmt: skip
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    assert (made.replicates, made.df) == (5, 8)
    assert made.error == pytest.approx(math.sqrt(1.5 * (rest**2).sum() / 8 / 5))


@settings(max_examples=15, deadline=None)
@given(level=st.floats(-5, 5), spread=st.floats(0, 3), seed=st.integers(0, 99))
def test_an_arm_that_is_added_later_changes_no_verdict(
    tmp_path_factory: pytest.TempPathFactory, level: float, spread: float, seed: int
) -> None:
    sweep = filled(Sweep(tmp_path_factory.mktemp("sweep")), seed=seed)
    claims = [DeclaredClaim(name, "nll", Direction.lower) for name in ("multi - best single", "multi - human")]
    declare(sweep.root / "sweeps" / "eggs", claims, 0)

    def verdicts() -> tuple[dict[str, Contrast], list[Any]]:
        made = contrasts(sweep.root, SweepArms(sweep.arms()), ("nll", "whole"))
        judged = claim_results(sweep.root, "eggs", sweep.arms())
        return {f"{one.name} {one.arm.key} {one.measure}": replace(one, arm=sweep.arms()[0]) for one in made}, [
            (one.contrast.name, one.p, one.verdict) for one in judged
        ]

    (before, claimed), random = verdicts(), np.random.default_rng(seed)
    added: list[tuple[str, dict[str, Any]]] = [("multi", {"generators": "large"}), ("multi", {"mix.weights": "2,1"})]
    added += [("oak", {"mix.source": "oak"}), ("elm", {"student": "large"}), ("human", {"rows": 9})]
    for mix, axes in added:
        for take in range(4):
            sweep.add(mix, level + spread * random.normal(size=12), take, launch="2", **axes)
    after, now = verdicts()
    assert now == claimed
    assert {name: after[name] for name in before} == before


def test_the_error_is_pooled_over_the_synthetic_arms_of_a_student(sweep: Sweep) -> None:
    made = filled(sweep).contrasts("whole")
    one = made["multi - mean of singles", "whole"]
    levels = np.array(
        [[row.scores["whole"].value for row in sweep.rows if row.sources == SOURCES[mix]] for mix in SOURCES]
    )
    rest = levels - levels.mean(axis=0) - levels.mean(axis=1, keepdims=True) + levels.mean()
    assert (one.effect.pooled, one.effect.df) == (True, 6)
    assert one.effect.error == pytest.approx(math.sqrt(1.5 * (rest**2).sum() / 6 / 4))
    assert not made["multi - human", "whole"].effect.pooled


def test_several_sources_are_compared_with_one_at_their_likelihood(sweep: Sweep) -> None:
    for mix, weights, level in (("multi", "[1,1]", 1), ("multi", "[2,1]", 5), ("oak", "[1,1]", 2), ("elm", "[1,1]", 3)):
        matched_to = {"mix": "single_matched"} if mix != "multi" else {}
        for take in range(3):
            values = level + np.random.default_rng([take, level]).normal(0, 0.1, 8)
            sweep.add(mix, values, take, **{"mix.weights": weights} | matched_to)
    made = [each for each in contrasts(sweep.root, SweepArms(sweep.arms()), ["nll"]) if "matched" in each.name]
    assert [(each.name, each.arm.axes["mix.weights"]) for each in made] == [
        (f"multi - single_matched {source}", "[1,1]") for source in ("oak", "elm")
    ], "only with the likelihood of these weights"
    assert [each.effect.value for each in made] == pytest.approx([-1, -2], abs=0.2)
    assert not any(each.rank < 2 for each in made), "a control"
    declare(sweep.root / "sweeps" / "eggs", [DeclaredClaim("multi - single_matched", "nll", Direction.lower)], 0)
    assert [each.verdict for each in claim_results(sweep.root, "eggs", sweep.arms())] == ["shown"] * 2
    sweep.add("human", np.zeros(8), 0)
    (mean,) = [each for each in comparisons(sweep.arms()) if each.contrast == "human - mean of synthetic"]
    assert {one.axes["mix"] for one in mean.others} == {"multi"}


def population(sweep: Sweep, lineage: str, members: Iterable[int], replicates: int = 4, number: int = 2) -> np.ndarray:
    """Members of a population that share an effect in each replicate; the levels (members, replicates)."""
    levels, axes = [], {"rounds": "replace", "rounds.lineage": lineage, "rounds.round": str(number)}
    for member in members:
        for take in range(replicates):
            level = np.random.default_rng([take, *lineage.encode()]).normal(9) + member
            levels.append(level)
            sweep.add(
                "human", level + np.arange(6.0), take, mix="students_of_human", **axes | {"rounds.member": str(member)}
            )
    return np.array(levels).reshape(-1, replicates)


@pytest.mark.parametrize("lineage", ["pooled", "segmented"])
def test_a_pool_is_compared_with_the_mean_of_the_single_lineages_of_its_members(sweep: Sweep, lineage: str) -> None:
    levels = [population(sweep, each, range(3)).mean(axis=0) for each in (lineage, "single")]
    population(sweep, "single", range(3), number=3)
    made = sweep.contrasts()
    assert {name for name, _ in made} == {f"{lineage} - mean of single lineages"}, "once, and with the same round"
    one, whole = (made[f"{lineage} - mean of single lineages", name] for name in ("nll", "whole"))
    oracle = stats.ttest_rel(*levels)
    assert (whole.effect.p(), whole.effect.df) == (pytest.approx(oracle.pvalue), 3), "members are no replicates"
    assert one.effect.value == pytest.approx(np.mean(levels[0] - levels[1]))
    assert one.effect.n == 6
    above, below = levels + np.full_like(levels, 2.5)
    assert whole.ratio[0] == pytest.approx(math.exp(np.mean(np.log(above / below))))
    assert (one.rank, one.arm.axes["rounds.member"]) == (0, "0+1+2")
    assert one.verdict == ("shown" if one.adjusted < 0.05 else "not shown")
    name = f"{lineage} - mean of single lineages"
    declare(sweep.root / "sweeps" / "loops", [DeclaredClaim(name, "nll", where=["rounds.round=2"])], 0)
    (claim,) = claim_results(sweep.root, "loops", sweep.arms())
    assert claim.contrast.effect == one.effect


@pytest.mark.parametrize("lineage", ["single", "pooled"])
def test_an_error_is_not_pooled_over_arms_that_depend_on_each_other(sweep: Sweep, lineage: str) -> None:
    """Rounds descend from one another, members of a population share their rows."""
    random, levels = np.random.default_rng(0), dict[tuple[str, ...], np.ndarray]()
    for kind, data, member, number in itertools.product(("single", "pooled"), ("replace", "accumulate"), "01", "123"):
        levels[kind, data, member, number] = values = random.normal(5, 1, 5)
        axes = {"rounds": data, "rounds.lineage": kind, "rounds.member": member, "rounds.round": number}
        for take, value in enumerate(values):
            sweep.add("human", [value], take, mix="students_of_human", **axes)
    where = [f"rounds.lineage={lineage}", "rounds.member=0", "rounds.round=3"]
    claim = DeclaredClaim("rounds=replace - rounds=accumulate", "nll", where=where)
    declare(sweep.root / "sweeps" / "loops", [claim], 0)
    (made,) = claim_results(sweep.root, "loops", sweep.arms())
    kept = [values for (kind, _, member, number), values in levels.items()
            if number == "3" and (kind == "single" or (kind, member) == (lineage, "0"))]  # fmt: skip
    error = replicate_error(np.array(kept))
    assert (made.contrast.effect.df, error.homogeneous) == (4 * (len(kept) - 1), True)
    assert made.contrast.effect.error == pytest.approx(math.sqrt(2 * error.mean_square / 5))


def test_a_part_of_the_members_of_a_pool_describes_these_alone(sweep: Sweep) -> None:
    population(sweep, "pooled", range(4))
    population(sweep, "single", (1, 2))
    (made,) = sweep.contrasts("nll").values()
    assert (made.name, made.verdict) == ("pooled - mean of single lineages (2 of 4 members)", "descriptive")
    assert made.effect.value == pytest.approx(
        sum(
            sign
            * np.mean(
                [
                    row.scores["nll"].value
                    for row in sweep.rows
                    if row.axes["rounds.lineage"] == lineage and row.axes["rounds.member"] in "12"
                ]
            )
            for lineage, sign in (("pooled", 1), ("single", -1))
        )
    )


def test_students_that_are_compared_have_errors_of_their_own_whichever_is_named_first(sweep: Sweep) -> None:
    """One student varies more: its error is not that of the arms of the other."""
    for student, sd in (("toy", 0.1), ("large", 3.0)):
        random = np.random.default_rng(len(student))
        for mix, take in itertools.product(("multi", "oak", "elm"), range(4)):
            sweep.add(mix, random.normal(0, sd) + np.arange(4.0), take, student=student)
    arms = {(arm.axes["mix"], arm.axes["source"], arm.axes["student"]): arm for arm in sweep.arms()}
    pair = [arms["multi", "n/a", student] for student in ("toy", "large")]
    made = [
        contrast(sweep.root, Comparison("student=a - student=b", one, [other]), "nll", SweepArms(sweep.arms()))
        for one, other in (pair, pair[::-1])
    ]
    assert made[0].effect.p() == pytest.approx(made[1].effect.p())
    assert made[0].effect.df == 3, "of its two arms"


def test_noise_and_size_are_of_the_compared_arms_where_another_is_noisier(sweep: Sweep) -> None:
    random = np.random.default_rng(0)
    for mix, sd in (("multi", 0.1), ("oak", 0.1), ("elm", 10.0)):
        for take in range(6):
            sweep.add(mix, random.normal(0, sd) + np.arange(4.0), take)
    arms = {arm.axes["source"]: arm for arm in sweep.arms()}
    what = Comparison("multi - single", arms["n/a"], [arms["oak"]])
    made = contrast(sweep.root, what, "nll", SweepArms(sweep.arms()))
    assert not made.effect.pooled
    assert made.noise < 1, "of two models with a standard deviation of .1"
