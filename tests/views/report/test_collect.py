"""Rows from a store that was built: each cell once, none dropped, scores as they were written."""

from __future__ import annotations

import dataclasses
import math
import shutil
from typing import Any

import pytest

from synthdiv.core.types import ConfigError
from synthdiv.study.claims import DeclaredClaim, declare
from synthdiv.views.report import collect as collect_module
from synthdiv.views.report.collect import collect
from synthdiv.views.track.cell import publishable
from tests.views.report import conftest


def test_scores_are_those_of_the_suites(study: Any) -> None:
    cell = study.cell("human", 1.5)
    row = {row.key: row for row in collect(study.root, "eggs")}[cell.key]
    assert (row.state, row.arm, row.axes, row.seeds) == ("done", cell.arm, cell.axes, cell.seeds)
    assert list(row.scores) == ["nll_2", "published/self_bleu_3@words", "truth/excess_nll", "truth/coverage"]
    nll = row.scores["nll_2"]
    assert (nll.value, nll.low, nll.high, nll.n) == (1.5, 1.4, 1.6, 9)
    assert row.scores["truth/excess_nll"].value == math.inf


def test_equal_cells_are_one_row(study: Any) -> None:
    cell = study.cell("human", 1.5)
    study.ledger.add([dataclasses.replace(cell, overrides=["generators=small"])], [])
    assert len(study.ledger.cells()) == 2
    assert [row.axes["mix"] for row in collect(study.root, "eggs")] == ["none", "human"]


def test_the_vanilla_student_is_one_row_with_axes_that_do_not_apply(study: Any) -> None:
    study.cell("human", 1.5)
    study.cell("multi", 1.2, generators="small", rows=40, **{"generators.overlap": "1"})
    vanilla, *others = collect(study.root, "eggs")
    assert len(others) == 2
    assert vanilla.axes == {"mix": "none", "source": "n/a", "generators": "n/a", "student": "toy"}
    assert vanilla.seeds == {"train.seed": "n/a", "evaluate.respond.seed": 0}
    assert (vanilla.state, vanilla.scores["nll_2"].value) == ("done", 9.0)


def test_a_vanilla_student_that_was_launched_is_not_listed_twice(study: Any) -> None:
    cell = study.cell("human", 1.5)
    launched = dataclasses.replace(
        cell, key="k", arm="a", axes=cell.axes | {"mix": "none"}, suites=cell.vanilla, train=None
    )
    study.ledger.add([launched], [])
    assert sorted(row.arm for row in collect(study.root, "eggs")) == sorted([cell.arm, "a"])


def test_the_key_of_the_vanilla_student_is_that_of_a_launched_cell(study: Any) -> None:
    from synthdiv.core.stage import digest

    cell = study.cell("human", 1.5)
    vanilla = collect(study.root, "eggs")[0]
    assert vanilla.key == digest([[name, key] for name, key in sorted(cell.vanilla.items())])  # as pipeline.Graph.key


def test_unfinished_cells_are_listed_with_their_state(study: Any) -> None:
    cells = {
        state: study.cell("multi", 1.0 + seed, seed, "none")
        for seed, state in enumerate(("queued", "running", "failed"))
    }
    study.ledger.event(cells["running"].train, "running")
    study.ledger.event(cells["failed"].train, "failed", note="a bad value")
    rows = {row.key: row for row in collect(study.root, "eggs")}
    assert {state: rows[cell.key].state for state, cell in cells.items()} == {state: state for state in cells}
    assert rows[cells["failed"].key].reason == f"train {cells['failed'].train[:8]}: a bad value"
    assert not any(row.scores for row in rows.values())


def test_a_failure_of_a_finished_cell_is_ignored_and_removed_scores_are_queued(study: Any) -> None:
    cells = [study.cell("human", 1.5), study.cell("multi", 1.5)]
    study.ledger.event(cells[0].train, "failed", note="once")
    for key in cells[1].nodes:
        study.ledger.event(key, "built")
    assert [row.state for row in collect(study.root, "eggs")] == ["done", "done", "done"]
    shutil.rmtree(study.root / "artifacts" / "truth" / cells[1].suites["truth"])
    assert [row.state for row in collect(study.root, "eggs")] == ["done", "done", "queued"]


def test_finished_suites_of_an_unfinished_cell_count(study: Any) -> None:
    cell = study.cell("human", 1.5, build="some")
    row = {row.key: row for row in collect(study.root, "eggs")}[cell.key]
    assert row.state == "queued"
    assert list(row.scores) == ["nll_2", "published/self_bleu_3@words"]


@pytest.mark.parametrize("content", ["", "[", "null", "[1]", "[{}]", '{"files": 1}', "\0" * 99, None])
@pytest.mark.parametrize("name", ["scores.json", "items.parquet", "manifest.json"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_damaged_suite_costs_one_cell_its_scores(study: Any, name: str, content: str | None, padded: bool) -> None:
    """Cut, missing, or of the right size and no JSON: the cell says which artifact, and the command that removes it."""
    cells = [study.cell("human", 1.5), study.cell("multi", 2.5)]
    folder = study.root / "artifacts" / "collapse" / cells[0].suites["collapse"]
    size = (folder / name).stat().st_size
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content.ljust(size) if padded else content)
    _, damaged, other = collect(study.root, "eggs")
    assert (other.state, other.scores["nll_2"].value) == ("done", 2.5)
    if content is None and name == "manifest.json":
        assert damaged.state == "queued", "without a manifest it is not finished"
        return
    if padded and name == "items.parquet" and content is not None:
        assert damaged.state == "done", "a report does not read it; `doctor` compares hashes"
        return
    assert damaged.state == "damaged"
    assert damaged.reason.startswith(f"collapse {folder.name[:8]}: {name} ")
    assert f"`rm -r {folder}`, and run the same command again" in damaged.reason
    assert list(damaged.scores) == ["truth/excess_nll", "truth/coverage"], "the other suite counts"


def test_an_unknown_sweep_names_those_that_exist(study: Any) -> None:
    study.cell("human", 1.5)
    with pytest.raises(ConfigError, match="there are: eggs"):
        collect(study.root, "ham")


def test_publishable_parts_of_a_cell(study: Any) -> None:
    cell = study.cell("human", 1.5)
    actual = publishable(study.root, cell, samples=4)
    assert [(row["step"], row["loss"]) for row in actual.curve] == [(1, 2.0), (2, 1.0), (3, 2.0 / 3)]
    assert [score.name for score in actual.scores][:2] == ["nll_2", "published/self_bleu_3@words"]
    assert [row["response"] for row in actual.tables["samples"]] == [
        "published 0 0",
        "published 1 0",
        "published 2 0",
        "published 0 1",
    ]


def test_an_unfinished_cell_has_nothing_to_publish(study: Any) -> None:
    actual = publishable(study.root, study.cell("human", 1.5, build="none"))
    assert (actual.curve, actual.scores, actual.tables["samples"]) == ([], [], [])


def test_what_is_claimed_of_many_cells_is_kept(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest.Headlines, "headlines", ("nll_2",))
    monkeypatch.setattr(collect_module, "LARGE", 1)
    study.cell("human", 1.0)
    assert {*collect(study.root, "eggs")[-1].scores} == {"nll_2"}
    declare(study.ledger.folder, [DeclaredClaim("human - vanilla", "truth/coverage")], 0)
    assert {*collect(study.root, "eggs")[-1].scores} == {"nll_2", "truth/coverage"}
