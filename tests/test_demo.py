"""The demo as `make demo` runs it: slow, and the whole of it."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import synthdiv

from tests.views.report.reading import Page


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_is_a_whole_study_and_its_null_is_near_nothing(tmp_path: Path):
    synthdiv("-m", "experiment=demo", cwd=tmp_path)
    report = Path(synthdiv("report", "demo", cwd=tmp_path).stdout.strip())
    assert " 0 nodes built" in synthdiv("-m", "experiment=demo", cwd=tmp_path).stderr
    table = (tmp_path / report.parent / "cells.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(table)))
    distances = [row for row in rows if row["measure"] == "truth/js"]
    assert len(distances) == 17, "16 cells and the vanilla student"
    for suite in ("truth", "downstream", "quality", "preference", "safety"):
        assert any(row["measure"].startswith(suite) for row in rows), f"every suite has scores: {suite}"
    heat = Page((tmp_path / report).read_text(encoding="utf-8")).texts["heat"]
    tables = {line.split(" ")[0] for line in heat.splitlines() if " models, n " in line}
    assert tables >= {"nll_2", "truth/js", "downstream/facts/pretrained", "quality/panel", "safety/topic/refusal/panel"}
    assert "preference/likelihood_own-vanilla" in tables, "what can be read where no student can judge"
    assert "preference/bias_per_quality/student: not measurable: the vanilla student" in heat
    means = defaultdict(list)
    for row in distances:
        assert 0 <= float(row["value"]) <= math.log(2)
        means[row["mix"], row["generators.overlap"], row["generators.shift"]].append(float(row["value"]))
    mean = {key: sum(values) / len(values) for key, values in means.items()}
    default, null = ("", ""), ("1", "")  # the csv leaves an axis empty that a cell does not set
    unshifted = mean["single", "1", "n/a"]  # the first family, in the null and in the shift
    for single in (unshifted, mean["single", *null]):
        assert mean["single", *default] - mean["multi", *default] > abs(single - mean["multi", *null])
        assert abs(single - mean["multi", *null]) < 0.05
    assert mean["multi", "1", "0.5"] > mean["single", "1", "0.5"] > unshifted
