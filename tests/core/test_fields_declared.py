"""What fields declare: bounds are checked by one walk, which names each field by its place."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.fields import contents, problems, setting


@dataclass
class Inner:
    share: float = setting(0.5, least=0, most=1)

    def check(self, name: str) -> list[str]:
        return [f"{name}.share={self.share}: a half is refused"] if self.share == 0.25 else []


@dataclass
class Outer:
    rate: float = setting(1.0, above=0)
    rows: int | None = setting(None, least=1)
    seed: int = setting(0, least=0, below=8)
    inner: Inner = field(default_factory=Inner)
    parts: list[Inner] = field(default_factory=list)


@given(st.floats(), st.none() | st.integers(), st.integers(), st.lists(st.floats(-2, 2), max_size=3))
def test_exactly_the_values_out_of_bounds_are_named(rate, rows, seed, shares):
    wrong = problems(Outer(rate, rows, seed, parts=[Inner(share) for share in shares]), "outer")
    expected = {"outer.rate"} if not (rate > 0 and math.isfinite(rate)) else set()
    expected |= {"outer.rows"} if rows is not None and rows < 1 else set()
    expected |= {"outer.seed"} if not 0 <= seed < 8 else set()
    expected |= {f"outer.parts.{n}.share" for n, share in enumerate(shares) if not 0 <= share <= 1 or share == 0.25}
    assert {problem.split("=")[0] for problem in wrong} == expected


@pytest.mark.parametrize(
    ("outer", "problem"),
    [
        (Outer(rate=-1.0), "rate=-1.0: needs more than 0"),
        (Outer(rows=0), "rows=0: needs 1 or more"),
        (Outer(seed=8), "seed=8: needs 0 or more and less than 8"),
        (Outer(seed=10**400), f"seed={10**400}: needs 0 or more and less than 8"),
        (Outer(rate=math.inf), "rate=inf: needs a finite number, more than 0"),
        (Outer(inner=Inner(2.0)), "inner.share=2.0: needs 0 to 1"),
        (Outer(inner=Inner(0.25)), "inner.share=0.25: a half is refused"),
    ],
)
def test_a_problem_names_the_value_and_what_is_needed(outer, problem):
    assert problems(outer) == [problem]


@dataclass
class Hidden:
    shown: int = 0
    hidden: int = field(default=0, repr=False, compare=False)


@pytest.mark.parametrize(
    "other",
    [Hidden(hidden=1), Hidden(shown=True), Hidden(shown=0.0), Hidden(shown="0"), Hidden(shown=-0.0), (0, 0), {}],
)
def test_contents_differ_where_any_field_does_shown_or_not(other):
    wrapped, same = [{"part": [other]}], [{"part": [Hidden()]}]
    assert contents(wrapped) != contents(same)
    assert contents(copy.deepcopy(wrapped)) == contents(wrapped)
    assert hash(contents(same)) == hash(contents([{"part": [Hidden()]}]))
