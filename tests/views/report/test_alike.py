"""Tables find the arms and replicates that agree, as looking at every pair does."""

from __future__ import annotations

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.core.types import Score
from synthdiv.views.report.alike import Alike
from synthdiv.views.report.arms import arms_of
from synthdiv.views.report.collect import CellRow
from synthdiv.views.report.comparisons import comparisons

VALUES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([NOT_APPLICABLE, "x", "y", 0]))


@given(st.lists(VALUES, max_size=12), VALUES)
def test_entries_agree_on_all_names_that_apply_to_both(
    entries: list[dict[str, object]], wanted: dict[str, object]
) -> None:
    def agree(one: dict[str, object]) -> bool:
        pairs = [(one.get(name, NOT_APPLICABLE), wanted.get(name, NOT_APPLICABLE)) for name in "abcd"]
        return all(NOT_APPLICABLE in pair or pair[0] == pair[1] for pair in pairs)

    actual = Alike(enumerate(entries)).like(wanted)
    assert actual == [at for at, one in enumerate(entries) if agree(one)]


def test_the_comparisons_of_thousands_of_arms_are_listed_at_once() -> None:
    """Each pair of 3,000 arms took 15 µs: more than two minutes."""
    rows = []
    for rate, student, mix in itertools.product(range(250), "abc", ("human", "single", "multi", "none")):
        axes = {"mix": mix, "student": student, "train.lr": rate, "source": "oak" if mix == "single" else "n/a"}
        sources = {"single": ("oak",), "multi": ("oak", "elm")}.get(mix, ())
        key = f"{rate} {student} {mix}"
        rows.append(CellRow(key, key, axes, {}, key, "done", scores={"x": Score("x", 1.0, 1)}, sources=sources))
    begun = time.process_time()
    made = list(comparisons(arms_of(rows)))
    assert len(made) == 750 * 5, "one single, three with human answers or of them, one with vanilla"
    assert time.process_time() - begun < 10
