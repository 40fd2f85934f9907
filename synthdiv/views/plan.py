"""`plan`: what would run. The same expansion, with a printer for an engine; it writes nothing and never goes online."""

from __future__ import annotations

import json
from collections import Counter
from functools import cached_property
from pathlib import Path

from synthdiv.core.stage import ANSWER_TOKENS, PROMPT_TOKENS, Node
from synthdiv.study.config import Cell
from synthdiv.study.freeze import Frozen, unresolved
from synthdiv.study.match import budget
from synthdiv.study.pipeline import Graph
from synthdiv.views.bill import Bill
from synthdiv.views.disk import bytes_text, free_bytes


class Plan:
    """Counts over a frozen sweep. `missing` are the keys to build; `bill` is what they cost."""

    def __init__(self, frozen: Frozen, cell: Cell, missing: set[str], bill: Bill):
        self.frozen, self.cell, self.missing, self.bill = frozen, cell, missing, bill
        self.nodes = frozen.nodes()
        self.notes = list(dict.fromkeys(frozen.unresolved))
        self.free = free_bytes(Path(cell.runtime.outputs))

    @cached_property
    def unique(self) -> dict[str, tuple[Graph, list[str]]]:
        """Each cell once: its graph, and the overrides of all points that mean it, less those that all points have."""
        cells: dict[str, tuple[Graph, list[str]]] = {}
        for point, graph in zip(self.frozen.points, self.frozen.graphs, strict=True):
            if graph:
                words = " ".join(word for word in point.overrides if word not in self.common) or "(no overrides)"
                cells.setdefault(graph.key, (graph, []))[1].append(words)
        return cells

    @cached_property
    def common(self) -> list[str]:
        points = self.frozen.points
        if len(points) == 1:
            return []
        shared = set(points[0].overrides).intersection(*(point.overrides for point in points))
        return [word for word in points[0].overrides if word in shared]

    @cached_property
    def stages(self) -> dict[str, list[Node]]:
        stages: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            stages.setdefault(node.stage.name, []).append(node)
        return stages

    def unknown(self) -> set[str]:
        """Nodes whose identity only the hub knows, and all that depend on them."""
        keys: set[str] = set()
        for key, node in self.nodes.items():
            if unresolved(node) or any(inner.key in keys for inner in node.inputs.values()):
                keys.add(key)
        return keys

    def record(self) -> dict[str, object]:
        """The plan as JSON data. Unresolved nodes count as to build; cells without a known shape are not unique yet."""
        nodes = {
            stage: {
                "present": sum(node.key not in self.missing for node in nodes),
                "to_build": sum(node.key in self.missing for node in nodes),
            }
            for stage, nodes in self.stages.items()
        }
        estimate = self.bill.record() | {"free_bytes": self.free, "unresolved": self.notes}
        return {
            "cells": len(self.frozen.points),
            "unique_cells": len(self.unique),
            "nodes": nodes,
            "estimate": estimate,
        }


def print_json(plan: Plan) -> None:
    print(json.dumps(plan.record(), ensure_ascii=False))


def print_plan(plan: Plan) -> None:
    """Cells, equal ones once; nodes by stage; the bill."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(soft_wrap=True)
    if plan.common:
        console.print("in every cell: " + " ".join(plan.common), markup=False)
    title = f"{plan.cell.sweep}: {len(plan.frozen.points)} cells, {len(plan.unique)} unique"
    cells = Table("cell", "overrides", "to build", title=title, box=SIMPLE)
    cells.columns[1].overflow = "fold"
    for key, (graph, overrides) in plan.unique.items():
        same = f"\n= {len(overrides) - 1} more: {'; '.join(overrides[1:])}" if len(overrides) > 1 else ""
        inside = graph.nodes()
        lacking = sum(inner in plan.missing for inner in inside)
        cells.add_row(key[:8], escape(overrides[0] + same), f"{lacking} of {len(inside)}")
    console.print(cells)

    uses = Counter(key for graph, _ in plan.unique.values() for key in graph.nodes())
    unknown = plan.unknown()
    last = ["unresolved"] if unknown else []
    stages = Table("stage", "present", "to build", "shared by 2 or more cells", *last, title="nodes", box=SIMPLE)
    for stage, nodes in plan.stages.items():
        absent = sum(node.key in plan.missing for node in nodes)
        shared = sum(uses[node.key] > 1 for node in nodes)
        hidden = [str(sum(node.key in unknown for node in nodes))] if unknown else []
        stages.add_row(stage, str(len(nodes) - absent), str(absent), str(shared), *hidden)
    console.print(stages)
    for line in bill_lines(plan):
        console.print(line, markup=False, highlight=False)


def bill_lines(plan: Plan) -> list[str]:
    """What is still to build costs, and what these numbers rest on."""
    bill = plan.bill
    rest = "" if bill.measured == 1 else f" ({1 - bill.measured:.0%} of it from parameter counts, not measured)"
    short = "" if bill.disk_bytes <= plan.free else "; a launch refuses that"
    hours = f"{bill.device_hours:.3g}"
    return [
        f"tokens    {bill.generate_tokens:,} to generate, {bill.train_tokens:,} to train on",
        f"time      {hours} device-hours on {bill.accelerator or bill.device}{rest if bill.device_hours else ''}",
        f"money     {bill.usd:,.2f} USD for paid models (facts.price_in, facts.price_out)",
        f"disk      {bytes_text(bill.disk_bytes)} of {bytes_text(plan.free)} free{short}",
        f"estimates are of earlier artifacts in {plan.cell.runtime.outputs}; where there are none, {PROMPT_TOKENS} "
        f"tokens a prompt and at most {ANSWER_TOKENS} an answer",
        *unmatched_lines(plan),
        *(f"unknown: {name}: no price, so none of its money; give facts.price_in, price_out" for name in bill.unpriced),
        *(f"unknown: {name}: no size, so none of its hours; give facts.parameters" for name in bill.unknown),
        *(f"unresolved: {note}" for note in plan.notes),
    ]


def unmatched_lines(plan: Plan) -> list[str]:
    """Cells that are not matched by what they are, whatever was declared."""
    sizes = [budget(graph) for graph, _ in plan.unique.values() if graph.train]
    early, out = sum(size.early for size in sizes), sum(size.left_out > 0 for size in sizes)
    counts = {
        f"unmatched: {early} cells stop early: how much each trains depends on its data": early,
        f"unmatched: {out} cells may leave rows out: which ones depends on their data": out,
    }
    return [line for line, count in counts.items() if count]
