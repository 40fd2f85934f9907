"""Who judged a sweep, how far each judge was checked, and how judges, students and sources are related."""

from __future__ import annotations

from collections.abc import Sequence

from synthdiv.core.ledger import Ledger
from synthdiv.evaluate.suite import declared
from synthdiv.generate.spec import Backend
from synthdiv.views.calibration import judge_identity, judge_status
from synthdiv.views.layout import Row

STUDENT = "student"  # the name under which every student of a sweep judges
CERTAIN = {
    Backend.exact.value: "exact: the truth of the toy world",
    Backend.rules.value: "by the phrases with which answers begin",
}


def judge_rows(ledger: Ledger) -> tuple[Sequence[Row], list[str]]:
    """A row for each judge and rubric of a sweep, and each relation of a judge, a student and a source."""
    nodes = {node.key: node for node in ledger.nodes()}
    backends, cells = dict[tuple[str, str, str], str](), ledger.cells()
    of_student = "; ".join(declared(dict.fromkeys(suite for cell in cells for suite in cell.suites), "student_judge"))
    for node in nodes.values():
        prompts = nodes.get(node.inputs.get("prompts", ""))
        if node.stage == "generate" and prompts and prompts.stage == "judge_prompts":
            judge, rubric = node.fields["source"], prompts.fields["rubric"]
            identity = judge_identity(node, rubric) if judge != STUDENT else ""
            backends[judge, f"{rubric['name']} {rubric['version']}", identity] = node.fields["backend"]
    rows = list[Row]()
    for (judge, rubric, identity), backend in sorted(backends.items()):
        status = (CERTAIN.get(backend) or judge_status(ledger.root, identity)) if identity else of_student
        rows.append({"judge": judge, "rubric": rubric, "identity": identity, "checked against labels": status})
    return rows, list(dict.fromkeys(line for cell in cells for line in cell.relations))
