"""The structure that `tests/structure.py` measures: rooms within their budgets, imports that only go down."""

from __future__ import annotations

import ast
import dataclasses
import re
import statistics
from collections import Counter

import pytest

from synthdiv.evaluate.rubric import Rubrics
from synthdiv.evaluate.suite import own_suites
from tests import structure


def test_every_room_has_a_budget_and_a_floor():
    rooms = {structure.room(module) for module in structure.modules()}
    assert rooms == set(structure.BUDGETS)
    floors = {name.removeprefix("synthdiv.") for name in structure.floors()}
    assert rooms - {"command"} <= floors


@pytest.mark.parametrize("room", structure.BUDGETS)
def test_a_room_stays_within_its_budget(room):
    assert sum(structure.rooms()[room]) <= structure.BUDGETS[room]


def test_the_whole_stays_within_its_budget():
    sizes = [count for counts in structure.rooms().values() for count in counts]
    assert sum(sizes) <= structure.TOTAL
    assert statistics.median(sizes) <= structure.MEDIAN
    assert structure.over_long() == {}


def test_a_file_name_is_used_once():
    assert structure.repeated_names() == []


def test_a_class_name_is_used_once():
    texts = [file.read_text(encoding="utf-8") for file in structure.modules().values()]
    counts = Counter(name for text in texts for name in re.findall(r"^class (\w+)", text, re.MULTILINE))
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_modules_import_each_other():
    assert structure.circles() == []


def test_no_suite_imports_another_suite():
    suites = {f"synthdiv.evaluate.{name}" for name in own_suites()}
    assert len(suites) > 9
    assert {suite: others for suite in suites if (others := structure.imports()[suite] & suites)} == {}


def test_no_module_imports_one_of_a_higher_floor():
    assert structure.arrows_up() == []


def test_no_suite_is_named_above_evaluate():
    """What is special about a suite is its attribute (`evaluate/suite.py`). A rubric may have the name of a suite."""
    suites, rubrics = own_suites(), [each.name for each in dataclasses.fields(Rubrics)]
    imported = {f"synthdiv.evaluate.{suite}" for suite in suites}
    names, bare = "|".join(suites), "|".join({*suites} - {*rubrics})
    for module, file in structure.modules().items():
        if structure.room(module) in ("study", "engine", "views", "command"):
            assert not structure.imports()[module] & imported, module
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert not re.search(rf"^({bare})$|\b({names})(/| suite)", node.value), f"{module}:{node.lineno}"


def test_the_walk_sees_imports_inside_functions_and_those_for_types():
    imports = structure.imports()
    assert "synthdiv.views.plan" in imports["synthdiv.launch"], "inside a function"
    assert "synthdiv.core.resolver" in imports["synthdiv.evaluate.suite"], "TYPE_CHECKING"
    assert "synthdiv.core.stage" in imports["synthdiv.study.pipeline"]


def test_the_page_of_the_structure_is_at_most_five_percent_off():
    """Exact figures would change with every commit; `make structure` writes them anew."""
    page = structure.PAGE.read_text(encoding="utf-8").split(" files with code")[0]
    shown = {name: int(count.replace(",", "")) for name, count in re.findall(r"\| `(\w+)` \| \d+ \| ([\d,]+) \|", page)}
    counts = {name: sum(sizes) for name, sizes in structure.rooms().items()}
    assert shown.keys() == counts.keys(), "run `make structure`"
    assert sum(shown.values()) == pytest.approx(sum(counts.values()), rel=0.05), "run `make structure`"


def test_what_lines_are_for_is_counted_line_by_line(tmp_path):
    file = tmp_path / "one.py"
    head = '"""Doc."""\n\nimport os\n\n\nclass A:\n    x: int = 1\n    """Doc."""\n\n'
    file.write_text(head + "    def f(\n        self,\n    ):\n        # why\n        return os\n")
    assert structure.causes(file) == {
        "documentation": 3, "blank": 4, "imports": 1, "signatures and fields": 5, "logic": 1,
    }  # fmt: skip
