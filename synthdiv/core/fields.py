"""What a field of a stage or of a configuration block declares beside its type, and the one walk that checks it."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import cache
from typing import Any

MISSING = dataclasses.MISSING
BOUNDS = {
    "least": (lambda value, bound: value >= bound, "{} or more"),
    "above": (lambda value, bound: value > bound, "more than {}"),
    "most": (lambda value, bound: value <= bound, "at most {}"),
    "below": (lambda value, bound: value < bound, "less than {}"),
}


def setting(
    default: Any = MISSING, *, make: Callable[[], Any] | None = None, before: Any = MISSING, seed: bool = False,
    locator: bool = False, **bounds: float,
) -> Any:  # fmt: skip
    """A dataclass field with its `default` (or what `make()` gives).

    `least`, `above`, `most` and `below` bound a number. `before` is what a field that was added later stands for in
    older keys: the field is left out of the key while it equals that. `seed` marks what tells the replicates of an arm
    apart. A `locator` says where something is; resolving turns it into an identity field, and it never enters a key.
    """
    assert bounds.keys() <= BOUNDS.keys(), bounds
    facts = {"bounds": bounds, "before": before, "seed": seed, "locator": locator}
    if make:
        return dataclasses.field(default_factory=make, metadata=facts)
    return dataclasses.field(default=default, metadata=facts)


def locator() -> Any:
    """A locator without a default place."""
    return setting(None, locator=True)


@cache
def type_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def without_none(hint: Any) -> Any:
    """`X` of an annotation `X | None`; any other annotation as it is."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def blocks(record: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The dataclasses directly inside of `record`, also those in lists, each with its dotted name."""
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        for index, inner in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if hasattr(inner, "__dataclass_fields__"):
                place = dotted(name, item.name)
                yield place if index is None else f"{place}.{index}", inner


def problems(record: Any, name: str = "") -> list[str]:
    """Everything that is wrong with a configuration block, each problem beginning with the dotted name of its field:
    numbers out of bounds, what the block's own `check(name)` says, and the same of every block inside."""
    wrong = list(out_of_bounds(record, name))
    if hasattr(record, "check"):
        wrong += record.check(name)
    for place, block in blocks(record, name):
        wrong += problems(block, place)
    return wrong


def out_of_bounds(record: Any, name: str) -> Iterator[str]:
    for field, bounds in bounded(record.__class__):
        value = getattr(record, field)
        if value is None or isinstance(value, bool | Enum):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{dotted(name, field)}={value}: needs a finite number, {expected(bounds)}"
        elif not all(BOUNDS[kind][0](value, bound) for kind, bound in bounds.items()):
            yield f"{dotted(name, field)}={value}: needs {expected(bounds)}"


def listed_twice(name: str, names: Iterable[str], what: str) -> list[str]:
    """A problem for each name that stands more than once in the list `name` of `what`."""
    counts = sorted(Counter(names).items())
    return [f"{name}: {each!r} is listed twice; {what} need different names" for each, count in counts if count > 1]


@cache
def bounded(kind: type) -> list[tuple[str, dict[str, float]]]:
    """The fields of a block that have bounds, with these."""
    return [(item.name, bounds) for item in dataclasses.fields(kind) if (bounds := item.metadata.get("bounds"))]


def expected(bounds: dict[str, float]) -> str:
    """Bounds in words: `0 to 1`, `1 or more`, `more than 0 and at most 1`."""
    if bounds.keys() == {"least", "most"}:
        return f"{bounds['least']} to {bounds['most']}"
    return " and ".join(BOUNDS[kind][1].format(bound) for kind, bound in bounds.items())


def dotted(name: str, field: str) -> str:
    return f"{name}.{field}" if name else field


def contents(value: Any) -> Any:
    """The value with all that is inside it, as nested tuples to compare cells by: the text of a block would lack fields
    that are declared with `repr=False`."""
    if dataclasses.is_dataclass(value):
        return type(value), *(contents(getattr(value, item.name)) for item in dataclasses.fields(value))
    if isinstance(value, dict):
        return tuple((repr(name), contents(inner)) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return tuple(contents(inner) for inner in value)
    return repr(value)
