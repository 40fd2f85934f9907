"""`synthdiv dashboard NAME`: a workspace and a report of W&B as code, for the runs that `synthdiv publish` writes.

Without a server both are files in W&B's own form, and the report has its text and tables only: W&B looks up the runs of
a report when it is made."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from synthdiv.core.terminal import echo
from synthdiv.core.types import ConfigError, SynthdivError
from synthdiv.evaluate.suite import HEADLINE
from synthdiv.study.config import Track, TrackerName
from synthdiv.views.layout import markdown
from synthdiv.views.report.arms import Arm, arms_of
from synthdiv.views.report.collect import collect, of_role
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.tables import heading, measure_rows
from synthdiv.views.track.publish import IMAGES
from synthdiv.views.track.wandb import mode, project_name

GRID_AXES = ("mix", "generators", "student")  # the first columns of parallel coordinates, before axes that differ
PAIR = (12, 8)  # of the 24 columns of a W&B grid: two panels a row


def dashboard(root: Path, name: str, track: Track) -> int:
    """Write or save the dashboards of a sweep, and print where they are."""
    if track.name is not TrackerName.wandb:
        raise ConfigError(f"track={track.name.value}: dashboards are those of W&B; choose wandb")
    rows = collect(root, name)
    arms, headlines = arms_of(rows), of_role(rows, HEADLINE)
    if not headlines:
        raise ConfigError(f"sweep {name} has no finished cell with a headline score; `synthdiv status {name}` says why")
    online, project = mode() == "online", project_name(track.project)
    entity = track.entity or os.environ.get("WANDB_ENTITY") or ""
    if online and not entity:
        entity = str(import_module("wandb").Api().default_entity)
    images = [f"{IMAGES}/{file.stem}" for file in sorted((root / "reports" / name / IMAGES).glob("*.png"))]
    space = workspace(name, entity, project, panels_of(arms, headlines, images))
    panels = panels_of(arms, headlines, images) if online else {}
    page = report(name, entity, project, arms, headlines, panels)
    if online:
        try:
            echo(f"workspace: {space.save().url}")
            echo(f"report: {page.save().url}")
        except Exception as error:  # whatever the server or the network answers
            message = f"W&B: {error}. Set WANDB_MODE=offline to write the specifications only"
            raise SynthdivError(message) from error
        return 0
    for kind, item in (("workspace", space), ("report", page)):
        file = root / "reports" / name / f"wandb-{kind}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = item._to_model().model_dump_json(by_alias=True, exclude_none=True)
        file.write_text(json.dumps(json.loads(text), indent=1), encoding="utf-8")
        echo(str(file))
    return 0


def library(module: str) -> Any:
    """A module of wandb-workspaces, whose names have no types."""
    with warnings.catch_warnings():  # it uses what pydantic has deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        return import_module(f"wandb_workspaces.{module}")


def workspace(name: str, entity: str, project: str, panels: Mapping[str, list[Any]]) -> Any:
    """A workspace of one sweep: the answer, bars by arm, the grid, loss curves, and samples."""
    ws, expr = library("workspaces"), library("expr")
    sections = [ws.Section(name=title, panels=each, is_open=True) for title, each in panels.items()]
    runs = ws.RunsetSettings(filters=expr.And(expr.Metric("Tags") == name), groupby=[expr.Metric("Group")])
    settings = {"settings": ws.WorkspaceSettings(x_axis="train/step", max_runs=100), "runset_settings": runs}
    return ws.Workspace(entity=entity, project=project, name=f"synthdiv {name}", sections=sections, **settings)


def panels_of(arms: Sequence[Arm], headlines: Sequence[str], images: Sequence[str]) -> dict[str, list[Any]]:
    """The panels by section, with these figures of the report. Bars are means over the cells of an arm ± their standard
    error."""
    wr = library("reports.v2")
    pair = {"layout": wr.Layout(w=PAIR[0], h=PAIR[1])}
    bars = [
        wr.BarPlot(
            title=f"{name}: mean over trained models ± standard error", metrics=[name],
            groupby="Group", groupby_aggfunc="mean", groupby_rangefunc="stderr", **pair,
        )
        for name in headlines
    ]  # fmt: skip
    axes = list(dict.fromkeys([*GRID_AXES, *Labels(arms).varying]))
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(axis)) for axis in axes]
    columns += [wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(name)) for name in headlines[:4]]
    curves = [
        wr.LinePlot(title=title, x="train/step", y=[metric], groupby="Group", groupby_rangefunc="minmax", **pair)
        for title, metric in (("Training loss", "train/loss"), ("Held-out loss", "train/validation_loss"))
    ]
    wide = {"layout": wr.Layout(w=24, h=12)}
    return {
        "The grid": [
            wr.MediaBrowser(title="Figures of `synthdiv report`", media_keys=list(images), **wide),
            wr.WeavePanelSummaryTable(table_name="arms", **wide),
            wr.ParallelCoordinatesPlot(title="Axes and headline scores", columns=columns, **wide),
        ],
        "Arms": bars,
        "Training": curves,
        "Answers": [wr.WeavePanelSummaryTable(table_name=table, **wide) for table in ("samples", "prompts", "scores")],
    }


def report(
    name: str, entity: str, project: str, arms: Sequence[Arm], headlines: Sequence[str], panels: Mapping[str, list[Any]]
) -> Any:
    """A report: a table of each headline score by arm, and where runs can be looked up the `panels`."""
    wr, expr = library("reports.v2"), library("expr")
    labels = Labels(arms)
    scored = {measure: [arm for arm in arms if measure in arm.means] for measure in headlines}
    tables = "\n".join(f"## {heading(those[0].means[measure].like)}\n\n{markdown(measure_rows(those, measure, labels))}"
                       for measure, those in scored.items())  # fmt: skip
    blocks: list[Any] = [wr.H1(f"synthdiv: {name}"), wr.TableOfContents(), wr.H2("Arms"), wr.MarkdownBlock(tables)]
    if panels:
        runset = wr.Runset(entity=entity, project=project, name=name, filters=expr.And(expr.Metric("Tags") == name))
        for title, each in panels.items():
            blocks += [wr.H2(title), wr.PanelGrid(runsets=[runset], panels=each)]
    return wr.Report(project=project, entity=entity, title=f"synthdiv {name}"[:128], blocks=blocks, width="fluid")
