"""Finds entries that are equal on all axes, or all seeds, that apply to both, without comparing each with each: the
arms of 10,000 cells have millions of pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from synthdiv.core.ledger import NOT_APPLICABLE

T = TypeVar("T")
Names = frozenset[str]


class Alike(Generic[T]):
    """Entries with values by name; a name whose value is `n/a` or absent does not apply. Entries to which the same
    names apply are a group, with a table by the values of the names that apply to what is looked for too."""

    def __init__(self, entries: Iterable[tuple[T, Mapping[str, Any]]]):
        self.groups = defaultdict[Names, list[tuple[int, T, Mapping[str, Any]]]](list)
        self.tables = dict[tuple[Names, Names], dict[tuple[Any, ...], list[tuple[int, T]]]]()
        for place, (entry, values) in enumerate(entries):
            self.groups[applying(values)].append((place, entry, values))

    def like(self, values: Mapping[str, Any]) -> list[T]:
        """The entries that are equal to `values` on all names that apply to both, in their order."""
        names, places = applying(values), dict[int, T]()
        for group, members in self.groups.items():
            shared = sorted(group & names)
            if (group, group & names) not in self.tables:
                table = self.tables[group, group & names] = defaultdict(list)
                for place, entry, entry_values in members:
                    table[tuple(entry_values[name] for name in shared)].append((place, entry))
            places.update(self.tables[group, group & names].get(tuple(values[name] for name in shared), ()))
        return [places[place] for place in sorted(places)]


def applying(values: Mapping[str, Any]) -> Names:
    return frozenset(name for name, value in values.items() if value != NOT_APPLICABLE)
