"""Dashboards as W&B stores them, made without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synthdiv.core.types import ConfigError
from synthdiv.study.config import Track, TrackerName
from synthdiv.views.track.dashboard import dashboard
from tests.views.report.conftest import Study

WANDB = Track(TrackerName.wandb, "eggs", "team")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthdiv.views.track.dashboard.mode", lambda: "offline")


def walk(value: Any) -> Any:
    """Every dictionary in nested JSON."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from walk(inner)


def written(root: Path) -> tuple[Any, Any]:
    folder = root / "reports" / "eggs"
    return tuple(json.loads((folder / f"wandb-{kind}.json").read_text()) for kind in ("workspace", "report"))  # type: ignore[return-value]


def test_a_workspace_has_the_panels_of_the_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(tmp_path)
    for mix, value in (("human", 1.0), ("multi", 2.0)):
        study.cell(mix, value, **{"mix.rows": 8})
    assert dashboard(tmp_path, "eggs", WANDB) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    workspace, _ = written(tmp_path)
    spec = workspace["spec"] if isinstance(workspace["spec"], dict) else json.loads(workspace["spec"])
    sections = {section["name"]: section["panels"] for section in spec["section"]["panelBankConfig"]["sections"]}
    assert list(sections) == ["The grid", "Arms", "Training", "Answers"]
    kinds = [panel["viewType"] for panel in sections["The grid"]]
    assert kinds == ["Media Browser", "Weave", "Parallel Coordinates Plot"]
    (parallel,) = [panel["config"] for panel in sections["The grid"] if panel["viewType"].startswith("Parallel")]
    assert [column["accessor"] for column in parallel["columns"]] == [
        "config:mix.value", "config:generators.value", "config:student.value",
        "summary:nll_2", "summary:published/self_bleu_3@words", "summary:truth/excess_nll", "summary:truth/coverage",
    ]  # fmt: skip
    bars = [panel["config"] for panel in sections["Arms"]]
    assert [bar["metrics"] for bar in bars] == [
        ["nll_2"], ["published/self_bleu_3@words"], ["truth/excess_nll"], ["truth/coverage"]
    ]  # fmt: skip
    assert {(bar["groupBy"], bar["groupAgg"], bar["groupArea"]) for bar in bars} == {("group", "mean", "stderr")}
    curves = [panel["config"] for panel in sections["Training"]]
    assert [curve["metrics"] for curve in curves] == [["train/loss"], ["train/validation_loss"]]
    text = json.dumps(spec)
    assert '"tags"' in text
    assert '"eggs"' in text, "runs of other sweeps in the project are not shown"


def test_a_report_has_a_table_of_each_headline_with_replicates_and_n(tmp_path: Path) -> None:
    study = Study(tmp_path)
    for seed, value in enumerate((1.0, 1.1, 1.2)):
        study.cell("human", value, seed)
    dashboard(tmp_path, "eggs", WANDB)
    _, report = written(tmp_path)
    texts = [block["content"] for block in walk(report) if block.get("type") == "markdown-block"]
    assert len(texts) == 1
    assert "## nll_2 ↓ (nats/token)" in texts[0]
    row = next(line for line in texts[0].splitlines() if line.startswith("| human") and "1.1" in line)
    assert [cell.strip() for cell in row.split("|")][2:5] == ["1.1", "[0.8776, 1.379]", "3"]
    assert report["project"] == {"name": "eggs", "entityName": "team"}


def test_a_sweep_without_a_finished_cell_has_no_dashboard(tmp_path: Path) -> None:
    Study(tmp_path).cell("human", 1.0, build="none")
    with pytest.raises(ConfigError, match="no finished cell with a headline score; `synthdiv status eggs` says why"):
        dashboard(tmp_path, "eggs", WANDB)
    with pytest.raises(ConfigError, match="track=trackio: dashboards are those of W&B"):
        dashboard(tmp_path, "eggs", Track(TrackerName.trackio))
