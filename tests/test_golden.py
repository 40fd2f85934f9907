"""What the code computes stays what it is, whatever its parts are called: tokens, packing, training, generation,
likelihoods, vectors and every score of a small real study, beside the values in `golden/values.json`.

A thing that has another name now is looked up by `golden/names.json` (see `names` in `golden_shown`); a name that is
not in it must be as it was. New columns, files and fields of a summary are no difference; new scores are one. Run as a
program with `--write`, this file records the values of today, and the table of names is empty again.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a program: `tests` is a package beside this file
from tests.golden_scenes import Study
from tests.golden_shown import GOLDEN, names

VALUES = GOLDEN / "values.json"
SECTIONS = json.loads(VALUES.read_text(encoding="utf-8")) if VALUES.exists() else {}
NEAR = (1e-5, 1e-6)  # relative, absolute
# What stands on weights that were trained: other kernels of the same sums move a number by 2e-5 of it, and a
# difference of two such numbers by 4e-6
TRAINED = dict.fromkeys(("pretrain", "train", "checkpoint", "likelihood", "ruled", "collapse"), (1e-4, 1e-5))
KINDS = {"summary": "summary", "files": "files", "columns": "columns", "scores": "scores", "measures": "scores"}
MAY_GROW = ("summary", "files", "columns")
Names = dict[str, dict[str, str | None]]


class Renamed:
    """Golden values under the names of today. `used` are the entries of the table that were of use."""

    def __init__(self, table: Names):
        self.table, self.used = table, set[tuple[str, str]]()

    def tree(self, golden: Any, place: str, kind: str = "", before: str = "") -> Any:
        """`place` is the section or the file, `before` the names of the fields around this one, with dots."""
        if not isinstance(golden, dict):
            return golden
        actual = {}
        for old, value in golden.items():
            new = self.score(old) if kind == "scores" else self.other(kind, place, before + old)
            if new is None:
                continue
            inner = KINDS.get(old, "") if not kind else "summary" if kind == "summary" else ""
            around = f"{before}{old}." if kind == "summary" else ""
            actual[new] = self.tree(value, old if kind == "files" else place, inner, around)
        return actual

    def look(self, kind: str, name: str) -> str | None:
        self.used.add((kind, name))
        return self.table[kind][name]

    def other(self, kind: str, place: str, name: str) -> str | None:
        for key in (f"{place}:{name}", name):
            if key in self.table.get(kind, {}):
                return self.look(kind, key)
        return name.rpartition(".")[2] if kind == "summary" else name

    def score(self, name: str) -> str | None:
        """With what stands before it and behind it, or alone."""
        if name in self.table["scores"]:
            return self.look("scores", name)
        head, slash, rest = name.partition("/")
        if slash:
            inner, start = self.score(rest), self.part(f"{head}/")
            return None if inner is None or start is None else start + inner
        if name.endswith("-vanilla"):
            inner, end = self.score(name.removesuffix("-vanilla")), self.part("-vanilla")
            return None if inner is None or end is None else inner + end
        return name

    def part(self, name: str) -> str | None:
        return self.look("scores", name) if name in self.table["scores"] else name


def differences(actual: Any, golden: Any, near: tuple[float, float], where: str = "") -> Iterator[str]:
    """Where two trees differ: in a name, a text, a whole number, or a number by more than its rounding."""
    if isinstance(golden, dict) and isinstance(actual, dict):
        grown = [] if where.rpartition("|")[2] in MAY_GROW else [*actual.keys() - golden.keys()]
        yield from (f"{where}|{name}: is new" for name in sorted(grown))
        yield from (f"{where}|{name}: is not there" for name in sorted(golden.keys() - actual.keys()))
        for name in golden.keys() & actual.keys():
            yield from differences(actual[name], golden[name], near, f"{where}|{name}")
    elif isinstance(golden, list) and isinstance(actual, list) and len(golden) == len(actual):
        for place, (one, other) in enumerate(zip(actual, golden, strict=True)):
            yield from differences(one, other, near, f"{where}|{place}")
    elif isinstance(golden, float) and isinstance(actual, float):
        if not math.isclose(actual, golden, rel_tol=near[0], abs_tol=near[1]):
            yield f"{where}: is {actual!r} and was {golden!r}"
    elif type(golden) is not type(actual) or golden != actual:
        yield f"{where}: is {actual!r} and was {golden!r}"


def computed(root: Path) -> dict[str, Any]:
    """All values of today, as JSON has them."""
    return json.loads(json.dumps(Study(root).values, allow_nan=False))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return computed(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("section", SECTIONS)
def test_values_are_what_they_were(study, section):
    golden = Renamed(names()).tree(SECTIONS[section], section)
    expected = sorted(differences(study[section], golden, TRAINED.get(section, NEAR), section))
    assert not expected, f"{len(expected)} differences\n" + "\n".join(expected[:40])


def test_no_section_is_left_out(study):
    assert study.keys() == SECTIONS.keys()


def test_every_name_of_the_table_was_one():
    renamed = Renamed(names())
    for section, golden in SECTIONS.items():
        renamed.tree(golden, section)
    assert renamed.used == {(kind, name) for kind, table in names().items() for name in table}


def test_old_names_are_looked_up():
    table: Names = {
        "scores": {"nll": "loss", "plain/gone": None, "-vanilla": "-untouched"}, "files": {"a.parquet": "b.parquet"},
        "columns": {"id": "prompt", "a.parquet:value": "number"},
        "summary": {"by.rows": "rows_seen", "train:by": "per"},
    }  # fmt: skip
    golden = {
        "summary": {"by": {"rows": 1, "nll": 2}, "rows": 3},
        "files": {"a.parquet": {"columns": {"id": [], "value": 0}}, "c.parquet": {"columns": {"id": [], "value": 1}}},
        "scores": {"nll": [1], "plain/whole/nll-vanilla": [2], "plain/gone": [3], "other/gone": [4]},
    }
    assert Renamed(table).tree({"one": golden}, "train")["one"] == {
        "summary": {"per": {"rows_seen": 1, "nll": 2}, "rows": 3},
        "files": {
            "b.parquet": {"columns": {"prompt": [], "number": 0}},
            "c.parquet": {"columns": {"prompt": [], "value": 1}},
        },
        "scores": {"loss": [1], "plain/whole/loss-untouched": [2], "other/gone": [4]},
    }


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ({"a": [1.0, 3]}, []), ({"a": [1.000001, 3]}, []), ({"a": [1.1, 3]}, ["a|0"]), ({"a": [1.0, 4]}, ["a|1"]),
        ({"a": [1.0]}, ["a"]), ({"a": [None, 3]}, ["a|0"]), ({"a": [1.0, 3], "b": [0]}, ["b"]), ({}, ["a"]),
        ({"a": [1.0, 3.0]}, ["a|1"]), ({"a": ["inf", 3]}, ["a|0"]), ({"a": [1, 3]}, ["a|0"]),
    ],
)  # fmt: skip
def test_a_difference_is_named(actual, expected):
    seen = [line.partition(":")[0] for line in differences({"scores": actual}, {"scores": {"a": [1.0, 3]}}, NEAR)]
    assert seen == [f"|scores|{name}" for name in expected]


def laid_out(value: Any, depth: int = 0) -> str:
    """JSON with a line for whatever is short."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) + depth <= 118 or not isinstance(value, dict):
        return text
    inner = [f"{' ' * (depth + 1)}{json.dumps(key)}: {laid_out(part, depth + 1)}" for key, part in value.items()]
    return "{\n" + ",\n".join(inner) + f"\n{' ' * depth}}}"


def rounded(value: Any) -> Any:
    """Eight digits are more than any comparison asks for."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    with tempfile.TemporaryDirectory() as folder:
        made = rounded(computed(Path(folder)))
    VALUES.write_text(laid_out(made) + "\n", encoding="utf-8")
    empty = ",\n".join(f' "{kind}": {{}}' for kind in ("scores", "files", "columns", "summary"))
    (GOLDEN / "names.json").write_text(f"{{\n{empty}\n}}\n", encoding="utf-8")
