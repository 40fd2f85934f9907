"""`plan`: what would run. The same expansion, with a printer for an engine; it writes nothing and never goes online."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from synthdiv.config import Cell
from synthdiv.store import Store
from synthdiv.sweep.prepare import Frozen


def show_plan(frozen: Frozen, cell: Cell) -> int:
    """Print cells, equal ones once, and nodes by stage: present, to build, shared by how many cells."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    store = Store(Path(cell.runtime.outputs))
    records = frozen.records()
    nodes = frozen.nodes()
    uses = Counter(key for key, keys in {record.key: record.nodes for record in records}.items() for key in keys)
    present = {key for key, node in nodes.items() if store.has(node)}
    console = Console(soft_wrap=True)

    common = (
        [word for word in records[0].overrides if all(word in record.overrides for record in records)]
        if records
        else []
    )
    equal: dict[str, list[str]] = {}
    for record in records:
        told = " ".join(word for word in record.overrides if word not in common or len(frozen.points) == 1)
        equal.setdefault(record.key, []).append(told or "(no overrides)")
    if common and len(frozen.points) > 1:
        console.print("in every cell: " + " ".join(common), markup=False)
    cells = Table(
        "cell",
        "overrides",
        "to build",
        title=f"{cell.sweep}: {len(frozen.points)} cells, {len(equal)} unique",
        box=SIMPLE,
    )
    inside = {record.key: record.nodes for record in records}
    for key, overrides in equal.items():
        same = f"\n= {len(overrides) - 1} more: {'; '.join(overrides[1:])}" if len(overrides) > 1 else ""
        missing = sum(inner not in present for inner in inside[key])
        cells.add_row(key[:8], escape(overrides[0] + same), f"{missing} of {len(inside[key])}")
    console.print(cells)

    stages = Table("stage", "present", "to build", "shared by 2 or more cells", title="nodes", box=SIMPLE)
    for stage in dict.fromkeys(node.stage.name for node in nodes.values()):
        keys = [key for key, node in nodes.items() if node.stage.name == stage]
        there = sum(key in present for key in keys)
        stages.add_row(stage, str(there), str(len(keys) - there), str(sum(uses[key] > 1 for key in keys)))
    console.print(stages)
    for note in dict.fromkeys(frozen.unresolved):
        console.print(f"unresolved: {note}", markup=False)
    return 0
