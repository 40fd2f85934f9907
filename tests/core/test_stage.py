"""Keys: equal exactly where the meaning is equal, whatever the order, the runtime or the age of the schema."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.fields import locator, setting
from synthdiv.core.stage import Node, canonical_fields
from synthdiv.core.types import ConfigError
from tests.graphs import Taking, taking


class Colour(Enum):
    red = "red"
    blue = "blue"


@dataclass
class Inner:
    depth: int = 1
    share: float = 0.5


@dataclass
class Thing(Taking):
    name = "thing"
    size: int = 1
    rate: float = 1.0
    word: str | None = None
    colour: Colour = Colour.red
    inner: Inner = field(default_factory=Inner)
    parts: list[float] = field(default_factory=list)
    path: str | None = locator()


def key(**fields: object) -> str:
    return Node(Thing(**fields)).key  # type: ignore[arg-type]


finite = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: x != 0 or math.copysign(1, x) > 0)
things = st.builds(
    Thing,
    size=st.integers(),
    rate=finite,
    word=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    colour=st.sampled_from(Colour),
    inner=st.builds(Inner, depth=st.integers(), share=finite),
    parts=st.lists(finite, max_size=4),
)


@given(things, things)
def test_keys_are_equal_exactly_where_fields_are(left, right):
    assert (Node(left).key == Node(right).key) == (left == right)


@given(things, things)
def test_inputs_enter_in_order(left, right):
    one, other = Node(left), Node(right)
    forth, back = taking(Thing(), one, other).key, taking(Thing(), other, one).key
    assert (forth == back) == (one.key == other.key)
    assert forth != taking(Thing(), one).key


def test_inputs_have_the_names_of_the_stage():
    thing, one = Thing(takes=2), Node(Thing())
    swapped = Node(thing, {"input1": one, "input0": Node(Thing(size=2))})
    assert list(swapped.inputs) == ["input0", "input1"], "in the order of the stage, however they are given"
    for inputs in ({"input0": one}, {"input0": one, "input2": one}, {"input0": one, "input1": one, "more": one}):
        with pytest.raises(TypeError, match=r"thing takes the inputs \['input0', 'input1'\]"):
            Node(thing, inputs)


def test_the_name_of_an_input_is_identity():
    @dataclass
    class Other(Thing):
        def input_names(self) -> list[str]:
            return ["answers"]

    one = Node(Thing())
    assert Node(Other(takes=1), {"answers": one}).key != taking(Thing(), one).key


@given(st.integers(-(2**53), 2**53))
def test_a_whole_number_in_a_float_field_is_that_float(number):
    assert key(rate=number) == key(rate=float(number))
    assert key(parts=[number]) == key(parts=[float(number)])


def test_a_locator_is_no_identity():
    assert key(path="/a") == key(path="/b") == key()


@pytest.mark.parametrize("bad", [math.nan, -0.0])
def test_nan_and_minus_zero_are_refused_by_name(bad):
    with pytest.raises(ConfigError, match=r"thing\.rate"):
        key(rate=bad)
    with pytest.raises(ConfigError, match=r"thing\.inner\.share"):
        key(inner=Inner(share=bad))


def test_name_and_version_are_identity_and_the_class_name_is_not():
    @dataclass
    class Other(Thing):
        pass

    @dataclass
    class Newer(Thing):
        version = 2

    @dataclass
    class Renamed(Thing):
        name = "renamed"

    assert Node(Other()).key == key()
    assert len({Node(Newer()).key, Node(Renamed()).key, key()}) == 3


@given(things, st.integers())
def test_an_added_field_changes_no_key_while_it_equals_its_before(thing, value):
    @dataclass
    class Grown(Thing):
        extra: int = setting(0, before=0)

    grown = Grown(**{item.name: getattr(thing, item.name) for item in dataclasses.fields(Thing)}, extra=value)
    assert (Node(grown).key == Node(thing).key) == (value == 0)


def test_before_may_differ_from_the_new_default():
    @dataclass
    class Grown(Thing):
        extra: str = setting("better", before="as it was")

    assert Node(Grown(extra="as it was")).key == key()
    assert Node(Grown()).key != key()


def test_the_canonical_form_is_frozen():
    assert Node(Thing(rate=2, word="ä")).key == "ea7deb95e2333258b9566e30e394eee3587fb78b44939824c6729f8ddae55057"
    assert canonical_fields(Thing(rate=2))["rate"] == 2.0


def test_ancestry_lists_inputs_first_and_each_node_once():
    base = Node(Thing())
    left, right = taking(Thing(size=2), base), taking(Thing(size=3), base)
    top = taking(Thing(size=4), left, right)
    order = list(top.ancestry())
    assert order[0] == base.key
    assert order[-1] == top.key
    assert len(order) == 4
