"""The report of a small study: every file, the scores of its suites, and a reason for each missing score."""

from __future__ import annotations

import csv
import itertools
import math
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from synthdiv.core.types import ConfigError
from synthdiv.views.report import page
from synthdiv.views.report.collect import collect
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

    monkeypatch.setattr(page, "draw_measure", write)
    monkeypatch.setattr(page, "draw_overview", write)


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
    cells, arms = (report / "cells.md").read_text(), (report / "arms.md").read_text()
    (line,) = [line for line in cells.splitlines() if "single" in line and "overlap 0" in line]
    (mark,) = [cell.strip().removeprefix("— ") for cell in line.split("|") if "—" in cell]
    assert f"{mark} too few words" in cells
    assert "undefined in 1 of 1 cells: too few words" in arms
    assert "∞" in cells


def test_the_number_of_replicates_decides_between_interval_and_range(report: Path) -> None:
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:5]]
        for cells in (line.split("|") for line in (report / "arms.md").read_text().splitlines())
        if len(cells) > 4
    }
    assert rows["human"] == ["3", "95 % t interval", "2 [-0.4841, 4.484]"]
    assert rows["multi overlap 0"] == ["1", "descriptive", "1.25"]
    assert rows["vanilla"][:2] == ["1", "descriptive"]
    means = {(line["name"], line["measure"]): line for line in table(report / "arms.csv")}
    assert (means["human", "nll_2"]["mean"], means["human", "nll_2"]["replicates"]) == ("2.0", "3")
    assert means["multi overlap 0", "nll_2"]["spread"].startswith("range, descriptive")


def test_unfinished_cells_are_on_the_page(eggs: Any, report: Path) -> None:
    text = (report / "report.md").read_text()
    part = text.split("## Not finished")[1].split("##")[0]
    (line,) = [line for line in part.splitlines() if eggs.waiting.key[:8] in line]
    assert "queued" in line
    assert "train=1" in line
    assert "9 unique cells" in text
    assert "(8 done, 1 queued)" in text


def test_the_contrast_is_shown_in_both_worlds(report: Path) -> None:
    part = (report / "report.md").read_text().split("## Several sources")[1].split("##")[0]
    differences = {
        cells[2].strip(): cells[5].strip()
        for cells in (line.split("|") for line in part.splitlines())
        if len(cells) > 5 and cells[1].strip() == "nll_2"
    }
    assert differences == {"multi overlap 0": "-0.75", "multi overlap 1": "+0.25"}
    assert "compare each difference with the one there" in part


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
    for file in ("report.md", "arms.md", "cells.md"):
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
    """The artists of the figure: points of human cells in both worlds, the mean of an arm, the ends of the bars."""
    from synthdiv.views.report import figures
    from synthdiv.views.report.arms import arms_of
    from synthdiv.views.report.labels import Labels

    drawn: list[Any] = []
    make = figures.new_figure
    monkeypatch.setattr(figures, "new_figure", lambda *size: drawn.append(make(*size)) or drawn[-1])
    arms = arms_of(collect(eggs.root, "eggs"))
    figures.draw_measure(arms, "nll_2", Labels(arms), tmp_path / "x.png")
    left, right = drawn[0].axes
    assert [axis.get_title() for axis in (left, right)] == ["overlap 0", "overlap 1"]
    for axis, others in ((left, [2.0, 1.25]), (right, [4.5, 4.75])):
        points = [line.get_ydata()[0] for line in axis.lines if line.get_marker() == "o"]
        assert sorted(points) == sorted([9.0, 1.0, 2.0, 3.0, *others])
        assert [label.get_text() for label in axis.get_xticklabels()] == ["vanilla", "human", "single ada", "multi"]
        flat = [list(line.get_ydata()) for line in axis.lines if len(line.get_ydata()) == 2]
        assert [2.0, 2.0] in flat  # the mean of the human arm
        assert [0.9, 1.1] in flat  # the interval of its first cell


def test_labels_do_not_overlap() -> None:
    from synthdiv.views.report import figures
    from synthdiv.views.report.arms import arms_of
    from synthdiv.views.report.labels import Labels

    cells = [
        cell_row("single", 1.0 + number, source=f"generator_{number}", generators=f"published_{size}")
        for number in range(14)
        for size in ("small", "large")
    ]
    arms = arms_of([cell_row("none", 9.0), *cells])
    labels = Labels(arms)
    figure = figures.new_figure(figures.width(figures.positions(arms, labels, ())) + 1.1, 6)
    axis = figure.subplots()
    figures.draw_panel(axis, arms, "x", labels, (), figures.positions(arms, labels, ()))
    figures.name_arms(axis, figures.positions(arms, labels, ()))
    figure.canvas.draw()
    texts = axis.get_xticklabels()
    assert len(texts) == 29
    ends = [text.get_transform().transform(text.get_position())[0] for text in texts]
    line = texts[0].get_fontsize() * 1.2 * figure.dpi / 72  # the height of a line, in pixels
    assert min(b - a for a, b in itertools.pairwise(ends)) * math.sin(math.pi / 4) > line


@pytest.mark.usefixtures("empty_figures")
def test_selected_measures_are_the_columns_and_the_figures(study: Any) -> None:
    study.cell("human", 1.0)
    first = write_report(study.root, "eggs", [])
    assert len(list((first.parent / "figures").iterdir())) == 5
    report = write_report(study.root, "eggs", ["truth/coverage"])
    assert {path.stem for path in (report.parent / "figures").iterdir()} == {"overview", "truth_coverage"}
    assert "nll_2" not in (report.parent / "arms.md").read_text()
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
