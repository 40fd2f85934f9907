"""The report of a small study: every file, the scores of its suites, and a reason for each missing score."""

from __future__ import annotations

import csv
import itertools
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import readings
from synthdiv.evaluate.truth import TruthSuite
from synthdiv.views.report import figures, page
from synthdiv.views.report.arms import arms_of
from synthdiv.views.report.collect import collect
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.page import write_report
from tests.views.report.conftest import Study
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


@pytest.fixture
def empty_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are empty files: for tests of what else a report writes."""

    def write(*arguments: Any) -> None:
        path = arguments[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    monkeypatch.setattr(page, "draw", write)


def lines_of(text: str, heading: str) -> list[dict[str, str]]:
    """The rows of the table below a heading of Markdown."""
    part = text.partition(f"# {heading}")[2].partition("\n#")[0]
    rows = [[cell.strip() for cell in line[2:-2].split(" | ")] for line in part.splitlines() if line[:1] == "|"]
    return [dict(zip(rows[0], row, strict=False)) for row in rows[2:]]


def test_csv_holds_every_score_unchanged(eggs: Any, report: Path) -> None:
    lines = {(line["cell"], line["measure"]): line for line in table(report / "cells.csv")}
    rows = [row for row in collect(eggs.root, "eggs") if row.scores]
    assert len(lines) == sum(len(row.scores) for row in rows) == 8 * 4
    for row in rows:
        for score in row.scores.values():
            line = lines[row.key, score.name]
            for end in ("value", "low", "high"):
                assert repr(float(line[end])) == repr(float(getattr(score, end)))
            assert (line["n"], line["unit"], line["note"]) == (str(score.n), score.unit, score.note)
            assert line["higher_is_better"] == str(score.higher_is_better)
            assert (line["mix"], line["train.seed"]) == (row.axes["mix"], str(row.seeds["train.seed"]))


def test_undefined_scores_are_shown_with_their_reason(report: Path) -> None:
    cells, page = (report / "cells.md").read_text(), (report / "report.md").read_text()
    lines = lines_of(cells, "published/self_bleu_3@words ↓ (0-100)")
    assert {(line["arm"], line["value"], line["n"], line["note"]) for line in lines if line["note"]} == {
        ("single ada overlap 0", "—", "0", "too few words")
    }
    (line,) = (line for line in lines_of(page, "published/self_bleu_3@words ↓ (0-100)") if line["mean"] == "—")
    assert (line["arm"], line["models"], line["note"]) == (
        "single ada overlap 0", "0", "undefined in 1 of 1 cells: too few words"
    )  # fmt: skip
    assert all(line["value"] == "∞" for line in lines_of(cells, "truth/excess_nll ↓ (nats/answer)"))


def test_the_number_of_replicates_decides_between_interval_and_range(report: Path) -> None:
    rows = {line["arm"]: line for line in lines_of((report / "report.md").read_text(), "nll_2 ↓ (nats/token)")}
    assert {name: (line["mean"], line["spread"], line["models"], line["n"]) for name, line in rows.items()} == {
        "vanilla": ("9", "one model", "1", "9"),
        "human": ("2", "[0.5776, 6.926]", "3", "9"),
        "single ada overlap 0": ("2", "one model", "1", "9"),
        "single ada overlap 1": ("4.5", "one model", "1", "9"),
        "multi overlap 0": ("1.25", "one model", "1", "9"),
        "multi overlap 1": ("4.75", "one model", "1", "9"),
    }
    assert rows["human"]["seeds that vary"] == "train.seed"
    assert "Intervals and ranges are over train.seed; evaluate.respond.seed" in (report / "report.md").read_text()
    means = {(line["name"], line["measure"]): line for line in table(report / "arms.csv")}
    assert (means["human", "nll_2"]["mean"], means["human", "nll_2"]["replicates"]) == ("2.0", "3")
    assert means["multi overlap 0", "nll_2"]["spread"] == "range, descriptive"


def test_unfinished_cells_are_on_the_page(eggs: Any, report: Path) -> None:
    text = (report / "report.md").read_text()
    part = text.split("## Not finished")[1].split("##")[0]
    (line,) = [line for line in part.splitlines() if eggs.waiting.key[:8] in line]
    assert "queued" in line
    assert "train=1" in line
    assert "9 unique cells" in text
    assert "(8 done, 1 queued)" in text


def test_the_contrast_is_shown_in_both_worlds(report: Path) -> None:
    lines = lines_of((report / "report.md").read_text(), "Several sources")
    differences = {line["several sources"]: line["difference"] for line in lines if line["measure"] == "nll_2"}
    assert differences == {"multi overlap 0": "-0.75", "multi overlap 1": "+0.25"}
    assert {line["n"] for line in lines if line["measure"] == "nll_2"} == {"9"}


def test_a_suite_says_how_its_scores_are_read(report: Path) -> None:
    """The suites `collapse` and `truth` of the package; a suite whose module is gone has nothing to say."""
    assert f"- {TruthSuite.reading}\n" in (report / "report.md").read_text()
    assert readings(["collapse", "no_such_suite", "truth"]) == [TruthSuite.reading]


@pytest.mark.usefixtures("empty_figures")
def test_a_damaged_suite_costs_one_cell(study: Any) -> None:
    cells = [study.cell("human", 1.0), study.cell("multi", 2.0)]
    file = study.root / "artifacts" / "collapse" / cells[0].suites["collapse"] / "scores.json"
    file.write_text(file.read_text()[:-10])
    text = write_report(study.root, "eggs", []).read_text()
    assert "(1 damaged, 2 done)" in text
    (line,) = lines_of(text, "Not finished")
    assert (line["cell"], line["state"]) == (cells[0].key[:8], "damaged")
    assert f"`rm -r {file.parent}`, and run the same command again" in line["why"]
    means = {line["arm"]: line["mean"] for line in lines_of(text, "nll_2 ↓ (nats/token)")}
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
    study.cell("single", 3.0, unmatched="400 steps", source="ada")
    folder = write_report(study.root, "eggs", []).parent
    line = (
        "arms are not matched: human, multi (2 epochs of 600 rows); single ada (400 steps); "
        "multi decoding (launched as matched)"
    )
    for file in ("report.md", "cells.md"):
        above, _, table = (folder / file).read_text().partition(line)
        assert "| single ada |" in table
        assert "|" not in above, file


def test_figures_are_drawn_and_shown(report: Path) -> None:
    names = {"overview", "nll_2", "published_self_bleu_3_words", "truth_coverage", "truth_excess_nll"}
    files = {path.stem: path for path in (report / "figures").iterdir()}
    assert set(files) == names
    for path in files.values():
        width, height = png_size(path)
        assert width > 700
        assert height > 400
        assert path.stat().st_size > 8000
        assert f"(figures/{path.name})" in (report / "report.md").read_text()


def test_figures_show_the_scores(eggs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The artists of the figure: the point of each cell, the mean of an arm, the ends of the bars."""
    drawn: list[Any] = []
    make = figures.new_figure
    monkeypatch.setattr(figures, "new_figure", lambda *size: drawn.append(make(*size)) or drawn[-1])
    arms = arms_of(collect(eggs.root, "eggs"))
    figures.draw(arms, ["nll_2", "truth/excess_nll"], Labels(arms), tmp_path / "x.png")
    axis, infinite = drawn[0].axes
    assert [panel.get_title() for panel in (axis, infinite)] == [
        "nll_2 ↓ (nats/token)",
        "truth/excess_nll ↓ (nats/answer)",
    ]
    points = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"]
    assert sorted(points) == sorted([9.0, 1.0, 2.0, 3.0, 2.0, 1.25, 4.5, 4.75])
    names = ["vanilla", "human", "single ada overlap 0", "single ada overlap 1", "multi overlap 0", "multi overlap 1"]
    assert [label.get_text() for label in axis.get_yticklabels()] == names
    flat = [list(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2]
    assert [2.0, 2.0] in flat  # the mean of the human arm
    assert [0.9, 1.1] in flat  # the interval of its first cell
    assert [text.get_text() for text in infinite.texts] == ["∞"] * 6


def test_labels_do_not_overlap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cells = [
        cell_row("single", 1.0 + number, source=f"generator_{number}", generators=f"published_{size}")
        for number in range(14)
        for size in ("small", "large")
    ]
    arms, drawn, make = arms_of([cell_row("none", 9.0), *cells]), [], figures.new_figure
    monkeypatch.setattr(figures, "new_figure", lambda *size: drawn.append(make(*size)) or drawn[-1])
    figures.draw(arms, ["x"], Labels(arms), tmp_path / "x.png")
    boxes = [text.get_window_extent() for text in drawn[0].axes[0].get_yticklabels()]
    assert len(boxes) == 29
    assert all(upper.y0 > lower.y1 for upper, lower in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


@pytest.mark.usefixtures("empty_figures")
def test_selected_measures_are_the_columns_and_the_figures(study: Any) -> None:
    study.cell("human", 1.0)
    first = write_report(study.root, "eggs", [])
    assert len(list((first.parent / "figures").iterdir())) == 5
    report = write_report(study.root, "eggs", ["truth/coverage"])
    assert {path.stem for path in (report.parent / "figures").iterdir()} == {"overview", "truth_coverage"}
    assert "nll_2" not in report.read_text() + (report.parent / "cells.md").read_text()
    assert not list((study.root / "reports").glob(".*"))


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
    script += "heavy = ('matplotlib', 'numpy', 'pyarrow', 'wandb', 'pandas', 'torch')\n"
    script += "print([name for name in heavy if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
