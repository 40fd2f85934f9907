"""The demo as `make demo` runs it: slow, and the whole of it."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import synthdiv


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_is_a_whole_study_and_its_null_is_near_nothing(tmp_path: Path):
    synthdiv("-m", "experiment=demo", cwd=tmp_path)
    report = Path(synthdiv("report", "demo", cwd=tmp_path).stdout.strip())
    assert " 0 nodes built" in synthdiv("-m", "experiment=demo", cwd=tmp_path).stderr
    table = (tmp_path / report.parent / "cells.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(table)))
    excess = [row for row in rows if row["measure"] == "truth/excess_nll"]
    assert len(excess) == 34, "32 cells and two vanilla students"
    means = defaultdict(list)
    for row in excess:
        value = float(row["value"])
        assert math.isfinite(value)
        assert value >= 0
        means[row["mix"], row["generators.overlap"], row["generators.shift"]].append(value)
    mean = {key: sum(values) / len(values) for key, values in means.items()}
    gap = mean["single", "0", "0"] - mean["multi", "0", "0"]
    null = mean["single", "1", "0"] - mean["multi", "1", "0"]
    assert gap > 10 * abs(null), "sources differ far more where families speak differently"
