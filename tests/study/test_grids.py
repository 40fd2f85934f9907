"""The grids of statistics: what their cells are, and that the small twin of the S2 grid runs from launch to page."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from synthdiv.core.resolver import Resolver
from synthdiv.study.freeze import freeze
from synthdiv.study.records import cell_record
from tests.study.test_published import points

SEEDS = ("train.seed", "generators.seed", "mix.rotation", "mix.real_rotation", "evaluate.respond.seed")


def records(name: str, root: Path) -> list[Any]:
    frozen = freeze(points(name), Resolver(root))
    assert all(frozen.graphs)
    return [cell_record(point, item) for point, item in zip(frozen.points, frozen.graphs, strict=True) if item]


def test_the_noise_floor_changes_every_seed_together_and_then_each_alone(tmp_path: Path) -> None:
    cells = [cell for cell in records("noise_floor", tmp_path) if cell.axes["mix"] == "multi"]
    seeds = [tuple(cell.seeds[name] for name in SEEDS) for cell in cells]
    assert seeds[:10] == [(at,) * 5 for at in range(10)]
    alone = Counter(tuple(at for at, seed in enumerate(each) if seed) for each in seeds[10:])
    assert alone == {(at,): 3 for at in range(5)}


def test_toy_eggs_has_every_single_and_worlds_beside_the_default_and_no_replicate_of_its_pilot(tmp_path: Path) -> None:
    cells = {cell.key: cell for cell in records("toy_eggs", tmp_path)}.values()
    assert {cell.seeds["train.seed"] for cell in cells} == {10, 11, 12, 13, 14}
    worlds = [(cell.axes["mix"], *map(cell.axes.get, ("generators.overlap", "generators.shift"))) for cell in cells]
    assert Counter(worlds) == {
        ("human", None, None): 10, ("single", None, None): 160, ("multi", None, None): 60,
        ("single", "1", None): 20, ("multi", "1", None): 10, ("single", "1", "0.5"): 10, ("multi", "1", "0.5"): 10,
        ("single", "1", "n/a"): 10,  # of the first family, which has no shift
    }  # fmt: skip


def test_the_thesis_grid_has_every_single_in_every_size() -> None:
    grid = points("thesis_grid")
    cells = Counter((each.cell.mix.kind.value, each.choices["generators"], each.choices["student"]) for each in grid)
    for size in ("small", "medium", "large"):
        for student in ("llama_8b", "llama_70b"):
            assert (cells["single", size, student], cells["multi", size, student]) == (12, 3)
    suites = {suite.suite for suite in grid[0].cell.evaluate.suites}
    assert suites == {"collapse", "safety", "preference", "quality", "downstream"}


@pytest.mark.timeout(1200)
def test_the_small_thesis_grid_runs_from_launch_to_page_with_its_interactions(typed: Any, tmp_path: Path) -> None:
    few = ["prompts.toy.rows=140", "prompts.test=20", "student.pretrain.tokens=3000", "evaluate.suites.1.prompts=2",
           "evaluate.suites.3.prompts=4", "evaluate.suites.3.mix_rows=4", "evaluate.suites.4.prompts=4",
           "evaluate.suites.5.samples=1", "mix.source=oak", "train.seed=0"]  # fmt: skip
    done = typed("-m", "experiment=thesis_grid_tiny", *few)
    assert done.code == 0, done.err
    assert "descriptive: multi - single oak (1 of 4 singles)" in done.out, "the sweep ends with its answer"
    assert "`synthdiv report thesis_grid_tiny` writes the page" in done.out
    report = typed("report", "thesis_grid_tiny")
    assert report.code == 0, report.err
    folder = tmp_path / "outputs" / "reports" / "thesis_grid_tiny"
    with (folder / "effects_and_interactions.csv").open(encoding="utf-8", newline="") as handle:
        effects = {row["effect"] for row in csv.DictReader(handle)}
    assert any(effect.count(" × ") == 2 for effect in effects), "source diversity × generator size × student size"
    assert "Effects and interactions" in (folder / "index.html").read_text(encoding="utf-8")
