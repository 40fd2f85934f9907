"""`plan`: what would run. The same expansion, with a printer for an engine; it writes nothing and never goes online."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from synthdiv.core.stage import ANSWER_TOKENS, PROMPT_TOKENS, Node
from synthdiv.core.terminal import echo
from synthdiv.study.match import budget
from synthdiv.study.pipeline import Graph
from synthdiv.views.bill import CostEstimate
from synthdiv.views.disk import free_bytes
from synthdiv.views.layout import bytes_text, common_words, show, table

Cells = dict[str, tuple[Graph, list[str]]]


def print_plan(plan: CostEstimate, as_json: bool, detects: Sequence[str] = ()) -> None:
    """Cells, equal ones once; nodes by stage; the bill; what claims can detect."""
    common = common_words([point.overrides for point in plan.frozen.points])
    cells, stages, missing = unique_cells(plan, common), dict[str, list[Node]](), plan.missing
    for node in plan.nodes.values():
        stages.setdefault(node.stage.name, []).append(node)
    if as_json:
        echo(json.dumps(record(plan, cells, stages) | {"claims": [*detects]}, ensure_ascii=False))
        return
    if common:
        show("in every cell: " + " ".join(common))
    lines, uses = [], Counter[str]()
    for key, (graph, overrides) in cells.items():
        same = f"\n= {len(overrides) - 1} more: {'; '.join(overrides[1:])}" if len(overrides) > 1 else ""
        inside = graph.nodes()
        uses.update(inside.keys())
        lines.append([key[:8], overrides[0] + same, f"{sum(inner in missing for inner in inside)} of {len(inside)}"])
    show(f"{plan.cell.sweep}: {len(plan.frozen.points)} cells, {len(cells)} unique")
    show(table(["!cell", "overrides", "!to build"], lines))

    last = [">unresolved"] if plan.unresolved else []
    lines = []
    for stage, nodes in stages.items():
        absent, shared = sum(node.key in missing for node in nodes), sum(uses[node.key] > 1 for node in nodes)
        hidden = [sum(node.key in plan.unresolved for node in nodes)] if last else []
        lines.append([stage, *map(str, [len(nodes) - absent, absent, shared, *hidden])])
    show("\nnodes", table(["stage", ">present", ">to build", ">shared by 2 or more cells", *last], lines))
    show("\n" + "\n".join([*bill_lines(plan, cells), *detects]))


def record(plan: CostEstimate, cells: Cells, stages: dict[str, list[Node]]) -> dict[str, object]:
    """The plan as JSON data. Unresolved nodes count as to build; cells without a known shape are not unique yet."""
    present = {stage: sum(node.key not in plan.missing for node in nodes) for stage, nodes in stages.items()}
    more = {"free_bytes": free_bytes(plan.root), "unresolved": list(dict.fromkeys(plan.frozen.unresolved))}
    counts = {stage: {"present": present[stage], "to_build": len(stages[stage]) - present[stage]} for stage in stages}
    sizes = {"cells": len(plan.frozen.points), "unique_cells": len(cells), "nodes": counts}
    return sizes | {"estimate": plan.bill.record() | more}


def unique_cells(plan: CostEstimate, common: list[str]) -> Cells:
    """Each cell once: its graph, and the overrides of all points that mean it, less those that all points have."""
    cells: Cells = {}
    for point, graph in zip(plan.frozen.points, plan.frozen.graphs, strict=True):
        if graph:
            words = " ".join(word for word in point.overrides if word not in common) or "(no overrides)"
            cells.setdefault(graph.key, (graph, []))[1].append(words)
    return cells


def bill_lines(plan: CostEstimate, cells: Cells) -> list[str]:
    """What is still to build costs, and what these numbers rest on."""
    bill, free = plan.bill, free_bytes(plan.root)
    rest = "" if bill.measured == 1 else f" ({1 - bill.measured:.0%} of it from parameter counts, not measured)"
    short = "" if bill.disk_bytes <= free else "; a launch refuses that"
    sizes = [budget(graph) for graph, _ in cells.values() if graph.train]
    early, out = sum(size.early for size in sizes), sum(size.left_out > 0 for size in sizes)
    unmatched = {  # by what they are, whatever was declared
        f"unmatched: {early} cells stop early: how much each trains depends on its data": early,
        f"unmatched: {out} cells may leave rows out: which ones depends on their data": out,
    }
    return [
        f"tokens    {bill.generate_tokens:,} to generate, {bill.train_tokens:,} to train on",
        f"time      {bill.device_hours:.3g} device-hours on {bill.accelerator or bill.device}"
        + (rest if bill.device_hours else ""),
        f"money     {bill.usd:,.2f} USD for paid models (facts.price_in, facts.price_out)",
        f"disk      {bytes_text(bill.disk_bytes)} of {bytes_text(free)} free{short}",
        f"estimates are of earlier artifacts in {plan.root}; where there are none, {PROMPT_TOKENS} "
        f"tokens a prompt and at most {ANSWER_TOKENS} an answer, fewer in a toy world",
        *(line for line, count in unmatched.items() if count),
        *(f"unknown: {name}: no price, so none of its money; give facts.price_in, price_out" for name in bill.unpriced),
        *(f"unknown: {name}: no size, so none of its hours; give facts.parameters" for name in bill.unknown),
        *(f"unresolved: {note}" for note in dict.fromkeys(plan.frozen.unresolved)),
    ]
