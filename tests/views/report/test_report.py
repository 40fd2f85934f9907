"""The report of a small study: every file, the scores of its suites, and a reason for each missing score."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthdiv.core.ledger import NodeRecord
from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import declared
from synthdiv.evaluate.truth import TruthSuite
from synthdiv.views.report import collect as collect_module
from synthdiv.views.report import figures, page
from synthdiv.views.report.arms import arms_of
from synthdiv.views.report.collect import collect
from synthdiv.views.report.contrasts import contrasts
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.page import write_report
from synthdiv.views.report.pools import SweepArms
from synthdiv.views.report.samples import Samples, samples_of
from synthdiv.views.report.sections import Content
from synthdiv.views.report.sessions import Provenance, provenance
from synthdiv.views.report.tables import latex
from tests.views.report.conftest import Study
from tests.views.report.reading import Page, rows
from tests.views.report.test_arms import row as cell_row


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return int(width), int(height)


@pytest.fixture(scope="module")
def eggs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Human with three replicates; single and multi in two worlds with one; a multi cell that has not run."""
    study: Any = Study(tmp_path_factory.mktemp("eggs"))
    for seed in range(3):
        study.cell("human", 1.0 + seed, seed)
    for overlap in ("0", "1"):
        world = {"generators": "small", "generators.overlap": overlap}
        study.cell("single", 2.0 if overlap == "0" else 4.5, source="ada", undefined=overlap == "0", **world)
        study.cell("multi", 1.25 if overlap == "0" else 4.75, **world)
    study.waiting = study.cell("multi", 7.0, 1, "none", generators="small", **{"generators.overlap": "1"})
    return study


@pytest.fixture(scope="module")
def report(eggs: Any) -> Path:
    """The folder of the report, with every figure."""
    return write_report(eggs.root, "eggs", []).parent


@pytest.fixture(scope="module")
def shown(report: Path) -> Page:
    return Page((report / "index.html").read_text(encoding="utf-8"))


@pytest.fixture
def empty_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are empty files: for tests of what else a report writes."""

    def write(*arguments: Any) -> None:
        path = arguments[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".png").touch()

    monkeypatch.setattr(page, "draw", write)
    monkeypatch.setattr(page, "draw_heat", write)


def test_csv_holds_every_score_unchanged(eggs: Any, report: Path) -> None:
    lines = {(line["cell"], line["measure"]): line for line in table(report / "cells.csv")}
    scored = [row for row in collect(eggs.root, "eggs") if row.scores]
    assert len(lines) == sum(len(row.scores) for row in scored) == 8 * 4
    for row in scored:
        for score in row.scores.values():
            line = lines[row.key, score.name]
            assert line["key"] == row.origin[score.name] != ""
            for end in ("value", "low", "high"):
                assert repr(float(line[end])) == repr(float(getattr(score, end)))
            assert (line["n"], line["unit"], line["note"]) == (str(score.n), score.unit, score.note)
            assert line["higher_is_better"] == str(score.higher_is_better)
            assert (line["mix"], line["train.seed"]) == (row.axes["mix"], str(row.seeds["train.seed"]))


def test_undefined_scores_are_shown_with_their_reason(report: Path, shown: Page) -> None:
    lines = [line for line in table(report / "cells.csv") if line["measure"].startswith("published")]
    assert {(line["mix"], line["value"], line["n"], line["note"]) for line in lines if line["note"]} == {
        ("single", "nan", "0", "too few words")
    }
    (line,) = (line for line in rows(shown, "heat", "arm", "note") if line["mean"] == "—")
    assert (line["arm"], line["models"], line["note"]) == (
        "single ada overlap 0", "0", "undefined in 1 of 1 cells: too few words"
    )  # fmt: skip


def test_the_number_of_replicates_decides_between_interval_and_range(report: Path, shown: Page) -> None:
    lines = {line["arm"]: line for line in rows(shown, "heat", "arm", "mean")}
    assert {name: (line["mean"], line["spread"], line["models"], line["n"]) for name, line in lines.items()} == {
        "vanilla": ("9", "one model", "1", "9"),
        "human": ("2", "[0.5776, 6.926]", "3", "9"),
        "single ada overlap 0": ("2", "one model", "1", "9"),
        "single ada overlap 1": ("4.5", "one model", "1", "9"),
        "multi overlap 0": ("1.25", "one model", "1", "9"),
        "multi overlap 1": ("4.75", "one model", "1", "9"),
    }
    assert lines["human"]["seeds that vary"] == "train.seed"
    assert "Intervals and ranges are over train.seed; evaluate.respond.seed" in shown.texts["threats"]
    means = {(line["name"], line["measure"]): line for line in table(report / "arms.csv")}
    for line in means.values():
        suites = [next(report.parents[1].glob(f"artifacts/*/{key}/scores.json")) for key in line["keys"].split()]
        assert len(suites) >= int(line["replicates"]), "each number names the suites it comes from"
        assert all(f'"{line["measure"]}"' in suite.read_text() for suite in suites)
    assert (means["human", "nll_2"]["mean"], means["human", "nll_2"]["replicates"]) == ("2.0", "3")
    assert means["multi overlap 0", "nll_2"]["spread"] == "range, descriptive"


def test_a_partial_sweep_gives_a_report_that_says_so_and_what_is_missing(eggs: Any, shown: Page) -> None:
    (line,) = rows(shown, "unfinished", "cell", "state")
    assert (line["cell"], line["state"]) == (eggs.waiting.key[:8], "queued")
    assert "train=1" in line["seeds"]
    assert "This report is partial: of 9 cells 8 done, 1 queued." in shown.texts[""]


def test_the_contrast_is_shown_in_both_worlds(shown: Page) -> None:
    assert "slice" not in shown.texts["effects"]
    tables = [each for each in shown.tables[""] if "verdict" in each[0]]
    lines = [dict(zip(each[0], row, strict=False)) for each in tables for row in each[1:] if row[0] == "nll_2 ↓"]
    assert [line["difference"] for line in lines] == ["-0.75", "0.25"]
    assert {(line["models"], line["verdict"]) for line in lines} == {("1", "descriptive")}
    assert shown.texts[""].count("nll_2 ↓: descriptive: fewer than 3 replicates") == 2, "the note beside the answer"
    assert "8 primary comparisons, exploratory: 5 descriptive, 3 not measured (fewer than 3 trained" in shown.texts[""]
    effects = {line["comparison"]: line["verdict"] for line in rows(shown, "effects", "comparison", "noise ±")}
    assert [name for name, verdict in effects.items() if verdict == "shown"] == ["human − vanilla"], "three replicates"


def test_effect_sizes_stand_beside_the_effects_with_their_intervals(shown: Page, report: Path) -> None:
    exact = {(line["contrast"], line["measure"]): line for line in table(report / "contrasts.csv")}
    line = exact["human - vanilla", "nll_2"]
    ends = [f"{float(line[name]):.4g}" for name in ("size", "size_low", "size_high")]
    sizes = {row["comparison"]: row["size (sd)"] for row in rows(shown, "effects", "comparison", "size (sd)")}
    assert sizes["human − vanilla"] == "{} [{}, {}]".format(*ends)


def test_comparisons_name_the_suites_that_they_come_from_and_the_answer_is_beside_the_page(
    eggs: Any, report: Path
) -> None:
    suites = {row.origin["nll_2"] for row in collect(eggs.root, "eggs") if row.scores}
    for line in table(report / "contrasts.csv"):
        if line["measure"] == "nll_2" and line["replicates"] != "0":
            assert {*line["keys"].split()} <= suites
    answer = (report / "answer.txt").read_text()
    assert answer.startswith(
        "descriptive: multi - best single (multi overlap 0), nll_2: -0.75; 1 prompts × 1 models; exp"
    )


def test_the_picture_of_the_design_has_one_box_for_an_arm_to_which_the_axes_do_not_apply(shown: Page) -> None:
    design = shown.tables[""][0]
    assert design[0] == ["", "generators.overlap"]
    assert design[2:] == [["vanilla", "●"], ["human", "●●●"], ["single ada", "●", "●"], ["multi", "●", "●○"]]
    heat = shown.tables["heat"][0]
    assert heat[2:] == [
        ["vanilla", "9"],
        ["human", "2 0.5776 – 6.926"],
        ["single ada", "2", "4.5"],
        ["multi", "1.25", "4.75"],
    ]


def test_a_measure_with_one_value_is_a_line_and_no_heat_map(shown: Page) -> None:
    same = "truth/excess_nll ↓ (nats/answer): ∞; truth/coverage ↑ (share): 0.5."
    assert f"The same in every arm that has it: {same}" in shown.texts["heat"]
    assert len([table for table in shown.tables["heat"] if table[0][:1] == ["arm"]]) == 2, "nll_2 and Self-BLEU"


def test_a_suite_says_how_its_scores_are_read(shown: Page) -> None:
    assert "of two their range, which is descriptive" in shown.texts["every"]
    """The suites `collapse` and `truth` of the package; a suite whose module is gone has nothing to say."""
    assert TruthSuite.reading.replace("`", "") in shown.texts["threats"]
    assert declared(["collapse", "no_such_suite", "truth"], "reading") == [TruthSuite.reading]


@pytest.mark.usefixtures("empty_figures")
def test_a_damaged_suite_costs_one_cell(study: Any) -> None:
    cells = [study.cell("human", 1.0), study.cell("multi", 2.0)]
    file = study.root / "artifacts" / "collapse" / cells[0].suites["collapse"] / "scores.json"
    file.write_text(file.read_text()[:-10])
    shown = Page(write_report(study.root, "eggs", []).read_text())
    assert "of 3 cells 1 damaged, 2 done" in shown.texts[""]
    (line,) = rows(shown, "unfinished", "cell")
    assert (line["cell"], line["state"]) == (cells[0].key[:8], "damaged")
    assert f"`rm -r {file.parent}`, and run the same command again" in line["why"]
    means = {line["arm"]: line["mean"] for line in rows(shown, "heat", "arm", "mean")}
    assert means == {"vanilla": "9", "human": "—", "multi": "2"}
    for cell in cells:
        for key in cell.suites.values():
            next(study.root.glob(f"artifacts/*/{key}/scores.json")).write_text("")
    for key in cells[0].vanilla.values():
        next(study.root.glob(f"artifacts/*/{key}/scores.json")).write_text("")
    with pytest.raises(ConfigError, match=r"\(3 damaged\).*\n.* damaged: collapse .*rm -r"):
        write_report(study.root, "eggs", [])


@pytest.mark.usefixtures("empty_figures")
def test_unmatched_arms_are_named_above_every_table(study: Any) -> None:
    study.cell("human", 1.0, unmatched="2 epochs of 600 rows")
    study.cell("multi", 2.0, unmatched="2 epochs of 600 rows")
    assert "not matched" not in write_report(study.root, "eggs", []).read_text(), "all train the same amount"
    study.cell("multi_decoding", 2.0)
    for place, source in enumerate(("ada", "bell", "cole", "dana", "eve", "fay")):
        study.cell("single", 3.0, source=source, **({} if place else {"unmatched": "400 steps"}))
    text = write_report(study.root, "eggs", []).read_text()
    line = (
        "arms are not matched: human, multi (2 epochs of 600 rows); single ada (400 steps); "
        "single bell, single cole, single dana, single eve and 2 more (launched as matched)"
    )
    above, _, below = text.partition(line)
    assert "<table" in below
    assert "<table" not in above


def test_the_figure_for_papers_is_written_as_pdf_and_png(report: Path) -> None:
    width, height = png_size(report / "figures" / "overview.png")
    assert width > 700
    assert height > 400
    assert (report / "figures" / "overview.pdf").read_bytes()[:5] == b"%PDF-"
    assert {path.stem for path in (report / "figures").iterdir()} == {"overview", "heat"}


def test_figures_show_the_scores(eggs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The artists of the figure: a ring for each model, the mean of an arm, the ends of its interval; the vanilla
    student does not squeeze the others; the caption promises only what is drawn."""
    drawn: list[Any] = []
    make = figures.new_figure
    monkeypatch.setattr(figures, "new_figure", lambda *size: drawn.append(make(*size)) or drawn[-1])
    arms = arms_of(collect(eggs.root, "eggs"))
    figures.draw(arms, ["nll_2", "truth/excess_nll"], Labels(arms), tmp_path / "x")
    axis, infinite = drawn[0].axes
    assert [panel.get_title() for panel in (axis, infinite)] == [
        "nll_2 ↓ (nats/token), n 9",
        "truth/excess_nll ↓ (nats/answer), n 4",
    ]
    rings = [x for line in axis.lines if line.get_mfc() == "none" for x in line.get_xdata()]
    assert sorted(rings) == sorted([1.0, 2.0, 3.0, 2.0, 1.25, 4.5, 4.75])
    names = ["vanilla (1)", "human (3)", "single ada overlap 0 (1)", "single ada overlap 1 (1)", "multi overlap 0 (1)",
             "multi overlap 1 (1)"]  # fmt: skip
    assert [label.get_text() for label in axis.get_yticklabels()] == names
    (bar,) = [line for line in axis.lines if line.get_linestyle() == "-"]
    assert list(bar.get_xdata()) == pytest.approx([0.5776, 6.926], rel=1e-3), "the human arm alone has three models"
    assert [text.get_text() for text in axis.texts] == ["9 →"]
    assert [text.get_text() for text in infinite.texts] == ["∞ →"] * 6
    assert "95 % t interval" in drawn[0].get_supxlabel()
    few = [arm for arm in arms if arm.axes["mix"] != "human"]
    assert "interval" not in figures.caption(few, ["nll_2"])


def test_labels_do_not_overlap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cells = [
        cell_row("single", 1.0 + number, source=f"generator_{number}", generators=f"published_{size}")
        for number in range(14)
        for size in ("small", "large")
    ]
    arms, drawn, make = arms_of([cell_row("none", 9.0), *cells]), [], figures.new_figure
    monkeypatch.setattr(figures, "new_figure", lambda *size: drawn.append(make(*size)) or drawn[-1])
    figures.draw(arms, ["x"], Labels(arms), tmp_path / "x")
    boxes = [text.get_window_extent() for text in drawn[0].axes[0].get_yticklabels()]
    assert len(boxes) == 29
    assert all(upper.y0 > lower.y1 for upper, lower in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


@pytest.mark.usefixtures("empty_figures")
def test_selected_measures_are_the_heat_maps_and_the_tables(study: Any) -> None:
    for seed in range(3):
        study.cell("human", 1.0 + seed, seed)
    first = write_report(study.root, "eggs", [])
    assert len(list((first.parent / "tables").iterdir())) == 4
    (before,) = (line for line in table(first.parent / "contrasts.csv") if line["measure"].startswith("published"))
    report = write_report(study.root, "eggs", ["published/self_bleu_3@words"])
    (after,) = table(report.parent / "contrasts.csv")
    assert after["p_by"] == before["p_by"] != after["p"], "selecting a measure makes nothing more certain"
    assert {path.name for path in (report.parent / "tables").iterdir()} == {"published_self_bleu_3_words.tex"}
    shown = Page(report.read_text())
    columns = ["arm", "mean", "spread", "models", "seeds that vary", "n"]
    assert [each[0] for each in shown.tables["heat"] if "arm" in each[0]] == [columns]
    assert "nll_2" not in shown.texts["heat"]
    assert not list((study.root / "reports").glob(".*"))


@pytest.mark.usefixtures("empty_figures")
def test_many_cells_have_a_summary_and_a_page_for_each_slice(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LARGE", 6)
    monkeypatch.setattr(collect_module, "LARGE", 6)
    for student in ("small", "large"):
        study.cell("human", 1.0, student=student)
        for source in ("ada", "bell"):
            study.cell("single", 2.0, student=student, source=source, generators="g")
        study.cell("multi", 1.5, student=student, generators="g")
    summary = write_report(study.root, "eggs", [])
    shown = Page(summary.read_text())
    links = rows(shown, "", "slice", "cells")
    assert [(line["slice"], line["cells"]) for line in links] == [("small", "5"), ("large", "4")], (
        "with its vanilla student"
    )
    assert "primary comparisons" in shown.texts[""], "of every slice"
    assert "heat" not in shown.texts
    small = Page((summary.parent / "slice1.html").read_text())
    assert "eggs · small" in small.texts[""]
    assert [row[0] for row in small.tables[""][0][1:]] == ["vanilla", "human", "single ada", "single bell", "multi"]
    assert (summary.parent / "tables" / "slice2_nll_2.tex").exists()
    assert len(table(summary.parent / "cells.csv")) == 9 * 4
    monkeypatch.undo()
    write_report(study.root, "eggs", [])
    assert not list(summary.parent.glob("slice*")), "no slice of an earlier report stays"


@pytest.mark.usefixtures("empty_figures")
def test_every_axis_can_slice_and_changes_no_comparison(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real share follows from the mix of human arms, which are in each slice; an axis of words comes first."""
    for share, rate, prompts in itertools.product((0.0, 0.5), (1e-4, 1e-3), ("dolly", "alpaca")):
        axes = {"real_share": share, "generators": "g", "prompts": prompts, "train.lr": rate}
        study.cell("human", 1.0, **axes | {"real_share": 1.0, "generators": "n/a"})
        study.cell("single", 2.0 + share, source="ada", **axes)
        study.cell("multi", 1.5 - share + rate, **axes)
    names, lines = ("contrast", "keys", "measure", "difference"), []
    for large in (99, 4):
        monkeypatch.setattr(page, "LARGE", large)
        summary = write_report(study.root, "eggs", [])
        made = table(summary.parent / "contrasts.csv")
        lines.append(sorted([line[name] for name in names] for line in made if "of synthetic" not in line["contrast"]))
    means = [(line["contrast"], line["measure"]) for line in made if "of synthetic" in line["contrast"]]
    assert len(means) == len({*means})
    assert all(name.endswith(")") for name, _ in means), "each names its slice"
    titles = [line["slice"] for line in rows(Page(summary.read_text()), "", "slice", "cells")]
    assert titles[:2] == ["alpaca · lr 0.0001 · real share 0", "alpaca · lr 0.0001 · real share 0.5"]
    assert len(titles) == 8
    assert lines[0] == lines[1]
    study.cell("human", 1.0, 1)
    for lineage, member, number in itertools.product(("pooled", "single"), "01", "12"):
        axes = {"rounds.lineage": lineage, "rounds.member": member, "rounds.round": number}
        study.cell("students_of_human", 2.0, 1, **axes)
    made = table(write_report(study.root, "eggs", []).parent / "contrasts.csv")
    assert [line["replicates"] for line in made if line["contrast"].startswith("pooled - mean of")] == ["1"] * 8


@pytest.mark.usefixtures("empty_figures")
def test_slices_and_the_terminal_pool_errors_over_the_whole_sweep(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    for seed, rate, source in itertools.product(range(3), ("slow", "fast"), ("ada", "bell", "")):
        axes = {"generators": "g", "train.schedule": rate} | ({"source": source} if source else {})
        study.cell("single" if source else "multi", 2 + random.normal(), seed, **axes)
    tables, across = [], []
    for large in (99, 9):
        monkeypatch.setattr(page, "LARGE", large)
        report = write_report(study.root, "eggs", []).parent
        tables.append(sorted(map(repr, table(report / "contrasts.csv"))))
        across.append(table(report / "effects_and_interactions.csv"))
    assert (report / "slice2.html").exists()
    assert tables[0] == tables[1]
    assert across[0] == across[1], "interactions are between what slices part"
    assert "Effects and interactions" in Page((report / "index.html").read_text()).texts[""]
    (line, *_) = [line for line in table(report / "contrasts.csv") if line["measure"] == "nll_2"]
    assert (line["pooled"], line["df"]) == ("True", "10"), "six arms of three models, in either slice"
    arms = arms_of(collect(study.root, "eggs"))
    made = {(each.name, each.arm.key, each.measure): each for each in contrasts(study.root, SweepArms(arms), ["nll_2"])}
    assert {each.effect.df for each in made.values() if each.effect.pooled} == {10}


@pytest.mark.usefixtures("empty_figures")
def test_a_population_whose_member_has_no_result_is_not_drawn_as_that_of_the_others(study: Any) -> None:
    for member, number in itertools.product("01", ("0", "1", "2")):
        axes = {"rounds.lineage": "pooled", "rounds.member": member, "rounds.round": number}
        study.cell("students_of_human", 1.0, build="none" if (member, number) == ("1", "2") else "all", **axes)
    drift = Page(write_report(study.root, "eggs", []).read_text()).texts["drift"]
    assert "1 of 1 replicates lack one of 2 members" in drift


@pytest.mark.usefixtures("empty_figures")
def test_one_cell_is_a_report_that_compares_nothing(study: Any) -> None:
    study.cell("human", 1.0)
    shown = Page(write_report(study.root, "eggs", []).read_text())
    assert "No primary comparison: this sweep" in shown.texts[""]
    assert "2 of 2 arms have fewer than three replicates" in shown.texts["threats"]


@pytest.mark.usefixtures("empty_figures")
def test_a_damaged_file_of_any_stage_costs_a_part_and_not_the_page(study: Any) -> None:
    study.ask("?")
    cell = study.cell("human", 1.0)
    other = study.cell("multi", 2.0)
    for stage, key, file in (
        ("generate", cell.responses["published"], "rows.jsonl"),
        ("train", cell.train, "metrics.parquet"),
        ("train", other.train, "manifest.json"),
    ):
        path = study.root / "artifacts" / stage / key / file
        path.write_bytes(b"[\n" + path.read_bytes()[:40])
    shown = Page(write_report(study.root, "eggs", []).read_text())
    (data,) = (json.loads(script) for script in shown.scripts if script.startswith('{"plots"'))
    assert data["samples"]["arms"] == ["vanilla", "multi"]
    assert len(rows(shown, "heat", "arm", "mean")) == 3


def test_decodings_in_another_order_show_the_same_answers(study: Any) -> None:
    study.ask("?")
    cell = study.cell("human", 1.0)
    other = dataclasses.replace(cell, key="k", arm="b", axes=cell.axes | {"mix": "multi"})
    study.ledger.add([dataclasses.replace(other, responses=dict(reversed(cell.responses.items())))], [])
    arms = arms_of(collect(study.root, "eggs"))
    samples = samples_of(study.ledger, arms, Labels(arms))
    assert samples.decoding == "published"
    assert samples.answers[-1] == samples.answers[-2] == [f"published {at} 0?" for at in range(3)]


def test_an_answer_stands_beside_the_prompt_of_its_own_set(study: Any) -> None:
    """Prompts of two sets have the same ids."""
    for words in ("?", "!"):
        study.ask(words)
        study.cell("human", 1.0, prompts=words)
    arms = [arm for arm in arms_of(collect(study.root, "eggs")) if arm.axes["mix"] == "human"]
    samples = samples_of(study.ledger, arms, Labels(arms))
    for row in samples.answers:
        for prompt, answer in zip(samples.prompts, row, strict=True):
            assert answer is None or answer[-1] == prompt["prompt"][-1]
    assert [sum(answer is None for answer in row) for row in samples.answers] == [3, 3]


def test_answers_that_a_confidential_set_asked_for_are_in_no_page(study: Any) -> None:
    study.ask("?")
    cell = study.cell("human", 1.0)
    manifest = study.root / "artifacts" / "generate" / cell.responses["published"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"confidential": false', '"confidential": true'))
    arms = arms_of(collect(study.root, "eggs"))
    assert samples_of(study.ledger, arms, Labels(arms)).arms == ["vanilla"]


def test_long_answers_are_cut_in_the_page_and_whole_beside_it() -> None:
    samples = Samples("plain", [{"id": "p", "prompt": "q"}], ["a"] * 100, [["x" * 5000, None]] * 100)
    shown = samples.page()["answers"]
    assert shown[0] == ["x" * 1500 + " … (5,000 characters)", None]
    assert samples.answers[0][0] == "x" * 5000


def test_shares_of_sources_and_measures_are_as_olmix_reads_them(study: Any) -> None:
    """`load_from_csv`: both have `run_id`, the shares of a run sum to 1, measures are numbers or empty."""
    cells = [study.cell(mix, 1.0) for mix in ("human", "multi")]
    content = Content(study.ledger, collect(study.root, "eggs"), Provenance())
    content.facts.mixes = {
        cells[0].train: {"sources": {"human": 4}},
        cells[1].train: {"sources": {"ada": 1, "bell": 3}},
    }
    ratios, metrics = (list(csv.DictReader(text.splitlines())) for _, text in page.swarm_files(content))
    assert [{name: line[name] for name in ("human", "ada", "bell")} for line in ratios] == [
        {"human": "1.0", "ada": "0.0", "bell": "0.0"}, {"human": "0.0", "ada": "0.25", "bell": "0.75"}
    ]  # fmt: skip
    assert [line["run_id"] for line in ratios] == [line["run_id"] for line in metrics] == [cell.key for cell in cells]
    assert {line["nll_2"] for line in metrics} == {"1.0"}
    assert list(metrics[0])[:2] == ["run_id", "name"]


def test_words_in_a_table_for_a_paper_are_escaped() -> None:
    text = latex([{"arm": r"a_b & 5 % {x} \y", "mean": 0.5}], "c ↓")
    assert r"a\_b \& 5 \% \{x\} \textbackslash{}y & 0.5 \\" in text
    assert r"\caption{c $\downarrow$}" in text
    assert r"\begin{tabular}{lr}" in text


def test_what_differs_between_sessions_is_named(tmp_path: Path) -> None:
    nodes = []
    for at, torch in enumerate(("2.12", "2.13", "2.13")):
        node = NodeRecord(f"k{at}", "train", {}, {})
        folder = tmp_path / "artifacts" / "train" / node.key
        folder.mkdir(parents=True)
        session = {"commit": "c", "dirty": at == 0, "versions": {"torch": torch, "numpy": "2"}, "seconds": 3600}
        killed = session | {"finished": None, "seconds": None}
        (folder / "manifest.json").write_text(json.dumps({"sessions": [killed] * (at == 1) + [session]}))
        nodes.append(node)
    facts = provenance(tmp_path, [*nodes, NodeRecord("gone", "train", {}, {})])
    assert facts.differing == ["commit", "torch"]
    assert [(line["value"], line["sessions"]) for line in facts.versions] == [
        ("c", 3), ("c with changes", 1), ("2.13", 3), ("2.12", 1)
    ]  # fmt: skip
    assert (facts.seconds, facts.time[0]["nodes"], facts.time[0]["killed"]) == (3 * 3600, 3, 1)


@pytest.mark.usefixtures("empty_figures")
@pytest.mark.parametrize(("commit", "words"), [("c0ffee", "One commit and"), (None, "the commit is not known")])
def test_an_unknown_commit_is_not_one_commit(study: Any, commit: str | None, words: str) -> None:
    study.cell("human", 1.0)
    for path in study.root.glob("artifacts/*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        sessions = [session | {"commit": commit, "dirty": False} for session in manifest["sessions"]]
        path.write_text(json.dumps(manifest | {"sessions": sessions}))
    assert words in Page(write_report(study.root, "eggs", []).read_text()).texts["versions"]


def test_a_misspelt_measure_is_refused_with_the_nearest(study: Any) -> None:
    study.cell("human", 1.0)
    with pytest.raises(ConfigError, match=r"report\.measures=truth/covrage: .*truth/coverage"):
        write_report(study.root, "eggs", ["truth/covrage"])
    assert not (study.root / "reports" / "eggs").exists()


def test_a_sweep_without_a_finished_cell_is_refused(study: Any) -> None:
    study.cell("human", 1.0, build="none")
    with pytest.raises(ConfigError, match=r"no finished cell yet \(2 queued\); see `synthdiv status eggs`"):
        write_report(study.root, "eggs", [])
    assert not (study.root / "reports").exists()


def test_importing_the_report_loads_nothing_heavy() -> None:
    import subprocess

    script = "import sys, synthdiv.views.report.page, synthdiv.views.track.wandb, synthdiv.views.track.cell\n"
    script += "heavy = ('matplotlib', 'numpy', 'pyarrow', 'wandb', 'pandas', 'torch', 'jinja2')\n"
    script += "print([name for name in heavy if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
