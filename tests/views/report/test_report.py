"""The report of a small study: every file, the numbers of the suites in it, and reasons where there is none."""

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
from synthdiv.views.report.collect import collect
from synthdiv.views.report.page import write_report


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return int(width), int(height)


@pytest.fixture
def eggs(study: Any) -> Any:
    """Human with three replicates; single and multi in two worlds with one; a multi cell that has not run."""
    for seed in range(3):
        study.cell("human", 1.0 + seed, seed)
    for overlap in ("0", "1"):
        world = {"generators": "small", "generators.overlap": overlap}
        study.cell("single", 2.0 if overlap == "0" else 4.5, source="ada", undefined=overlap == "0", **world)
        study.cell("multi", 1.25 if overlap == "0" else 4.75, **world)
    study.waiting = study.cell("multi", 7.0, 1, "none", generators="small", **{"generators.overlap": "1"})
    return study


def test_csv_holds_every_score_as_it_is(eggs: Any) -> None:
    folder = write_report(eggs.root, "eggs", []).parent
    lines = {(line["cell"], line["measure"]): line for line in table(folder / "cells.csv")}
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


def test_undefined_is_shown_with_its_reason(eggs: Any) -> None:
    folder = write_report(eggs.root, "eggs", []).parent
    cells, arms = (folder / "cells.md").read_text(), (folder / "arms.md").read_text()
    (line,) = [line for line in cells.splitlines() if "single" in line and "overlap 0" in line]
    (mark,) = [cell.strip().removeprefix("— ") for cell in line.split("|") if "—" in cell]
    assert f"{mark} too few words" in cells
    assert "undefined in 1 of 1 cells: too few words" in arms
    assert "∞" in cells


def test_replicates_decide_what_is_said_of_the_spread(eggs: Any) -> None:
    folder = write_report(eggs.root, "eggs", []).parent
    said = {
        cells[1].strip(): [cell.strip() for cell in cells[2:5]]
        for cells in (line.split("|") for line in (folder / "arms.md").read_text().splitlines())
        if len(cells) > 4
    }
    assert said["human"] == ["3", "95 % t interval", "2 [-0.4841, 4.484]"]
    assert said["multi overlap 0"] == ["1", "descriptive", "1.25"]
    assert said["vanilla"][:2] == ["1", "descriptive"]
    means = {(line["name"], line["measure"]): line for line in table(folder / "arms.csv")}
    assert (means["human", "nll_2"]["mean"], means["human", "nll_2"]["replicates"]) == ("2.0", "3")
    assert means["multi overlap 0", "nll_2"]["spread"].startswith("range, descriptive")


def test_unfinished_cells_are_on_the_page(eggs: Any) -> None:
    text = write_report(eggs.root, "eggs", []).read_text()
    part = text.split("## Not finished")[1].split("##")[0]
    (line,) = [line for line in part.splitlines() if eggs.waiting.key[:8] in line]
    assert "queued" in line
    assert "train=1" in line
    assert "9 unique cells" in text
    assert "(8 done, 1 queued)" in text


def test_the_contrast_stands_beside_its_null(eggs: Any) -> None:
    part = write_report(eggs.root, "eggs", []).read_text().split("## Several sources")[1].split("##")[0]
    differences = {
        cells[2].strip(): cells[5].strip()
        for cells in (line.split("|") for line in part.splitlines())
        if len(cells) > 5 and cells[1].strip() == "nll_2"
    }
    assert differences == {"multi overlap 0": "-0.75", "multi overlap 1": "+0.25"}
    assert "compare each difference with the one there" in part


def test_arms_that_were_launched_unmatched_are_told_above_every_table(study: Any) -> None:
    study.cell("human", 1.0, unmatched="2 epochs of 600 rows")
    study.cell("multi", 2.0, unmatched="2 epochs of 600 rows")
    assert "not matched" not in write_report(study.root, "eggs", []).read_text(), "they are, after all"
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


def test_figures_are_drawn_and_shown(eggs: Any) -> None:
    report = write_report(eggs.root, "eggs", [])
    names = {"overview", "nll_2", "published_self_bleu_3_words", "truth_coverage", "truth_excess_nll"}
    files = {path.stem: path for path in (report.parent / "figures").iterdir()}
    assert set(files) == names
    for path in files.values():
        width, height = png_size(path)
        assert width > 700
        assert height > 400
        assert path.stat().st_size > 8000
        assert f"(figures/{path.name})" in report.read_text()


def test_figures_show_the_numbers(eggs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn, by the artists of the figure: human cells in both worlds, the arm's mean, the bars' ends."""
    from synthdiv.views.report import figures
    from synthdiv.views.report.arms import arms_of
    from synthdiv.views.report.labels import Labels

    kept: list[Any] = []
    make = figures.new_figure
    monkeypatch.setattr(figures, "new_figure", lambda *size: kept.append(make(*size)) or kept[-1])
    arms = arms_of(collect(eggs.root, "eggs"))
    figures.draw_measure(arms, "nll_2", Labels(arms), eggs.root / "x.png")
    left, right = kept[0].axes
    assert [axis.get_title() for axis in (left, right)] == ["overlap 0", "overlap 1"]
    for axis, others in ((left, [2.0, 1.25]), (right, [4.5, 4.75])):
        points = [line.get_ydata()[0] for line in axis.lines if line.get_marker() == "o"]
        assert sorted(points) == sorted([9.0, 1.0, 2.0, 3.0, *others])
        assert [label.get_text() for label in axis.get_xticklabels()] == ["vanilla", "human", "single ada", "multi"]
        flat = [list(line.get_ydata()) for line in axis.lines if len(line.get_ydata()) == 2]
        assert [2.0, 2.0] in flat  # the mean of the human arm
        assert [0.9, 1.1] in flat  # the interval of its first cell


def test_labels_do_not_overlap(study: Any) -> None:
    from synthdiv.views.report import figures
    from synthdiv.views.report.arms import arms_of
    from synthdiv.views.report.labels import Labels

    for number in range(14):
        for size in ("small", "large"):
            study.cell("single", 1.0 + number, source=f"generator_{number}", generators=f"published_{size}")
    arms = arms_of(collect(study.root, "eggs"))
    labels = Labels(arms)
    figure = figures.new_figure(figures.width(figures.positions(arms, labels, ())) + 1.1, 6)
    axis = figure.subplots()
    figures.draw_panel(axis, arms, "nll_2", labels, (), figures.positions(arms, labels, ()))
    figures.name_arms(axis, figures.positions(arms, labels, ()))
    figure.canvas.draw()
    texts = axis.get_xticklabels()
    assert len(texts) == 29
    ends = [text.get_transform().transform(text.get_position())[0] for text in texts]
    line = texts[0].get_fontsize() * 1.2 * figure.dpi / 72  # the height of a line, in pixels
    assert min(b - a for a, b in itertools.pairwise(ends)) * math.sin(math.pi / 4) > line


def test_chosen_measures_are_the_columns_and_the_figures(eggs: Any) -> None:
    write_report(eggs.root, "eggs", [])
    report = write_report(eggs.root, "eggs", ["truth/coverage"])
    assert {path.stem for path in (report.parent / "figures").iterdir()} == {"overview", "truth_coverage"}
    assert "nll_2" not in (report.parent / "arms.md").read_text()
    assert not list((eggs.root / "reports").glob(".*"))


def test_a_misspelt_measure_is_refused_with_the_nearest(eggs: Any) -> None:
    with pytest.raises(ConfigError, match=r"report\.measures=truth/covrage: .*truth/coverage"):
        write_report(eggs.root, "eggs", ["truth/covrage"])
    assert not (eggs.root / "reports" / "eggs").exists()


def test_a_sweep_without_a_finished_cell_says_what_to_do(study: Any) -> None:
    study.cell("human", 1.0, build="none")
    with pytest.raises(ConfigError, match=r"no finished cell yet \(2 queued\); see `synthdiv status eggs`"):
        write_report(study.root, "eggs", [])
    assert not (study.root / "reports").exists()


def test_importing_the_report_loads_nothing_heavy() -> None:
    import subprocess

    script = "import sys, synthdiv.views.report.page, synthdiv.views.track.wandb, synthdiv.views.track.cell\n"
    script += "heavy = ('matplotlib', 'numpy', 'pyarrow', 'wandb', 'pandas', 'torch')\n"
    script += "print([name for name in heavy if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
