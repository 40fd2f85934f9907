"""A budget that all processes share, whatever they do in between and whoever of them is killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.generate.spend import FILE, OverBudget, Spending
from tests.conftest import ROOT

TOKENS = st.integers(0, 2000)
STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle", "lose", "cut"]), st.integers(0, 1), TOKENS, TOKENS), max_size=60
)


@given(STEPS, st.sampled_from([(0.01, None), (None, 5000), (0.01, 5000), (0.0, None)]))
def test_no_interleaving_crosses_the_budget_and_what_is_settled_is_what_it_cost(steps, budgets):
    """`lose`: a request of which nobody hears again. `cut`: a writer that is killed in the middle of a line."""
    usd, tokens = budgets
    with tempfile.TemporaryDirectory() as folder, Spending(Path(folder), usd, tokens, 2.5, 10.0) as one:
        with Spending(Path(folder), usd, tokens, 2.5, 10.0) as two:
            flying, spent, lost = [], [0.0, 0], [0.0, 0]
            for what, who, prompt, completion in steps:
                first = (one, two)[who]
                if what == "cut":
                    with (Path(folder) / FILE).open("ab") as handle:
                        handle.write(b'{"reserve": "half", "us')
                elif what == "reserve":
                    try:
                        name = first.reserve(prompt, completion)
                    except OverBudget:
                        name = None
                    if name:
                        flying.append((first, name, prompt, completion))
                    elif name is None:
                        room = usd is None or first.total[0] + first.usd(prompt, completion) <= usd - 1e-6
                        assert not (room and (tokens is None or first.total[1] + prompt + completion <= tokens))
                elif flying:
                    first, mark, most_prompt, most_completion = flying.pop(prompt % len(flying))
                    into, cost = (lost, (most_prompt, most_completion))
                    if what == "settle":
                        into, cost = spent, (most_prompt // 2, most_completion // 3)
                        first.settle(mark, *cost)
                    into[0] += first.usd(*cost)
                    into[1] += sum(cost)
                with Spending(Path(folder), None, None, 2.5, 10.0) as reader:
                    reader.settle("look", 0, 0)
                    assert usd is None or reader.total[0] <= usd + 1e-6
                    assert tokens is None or reader.total[1] <= tokens
            for first, mark, prompt, completion in flying:
                first.settle(mark, prompt, completion)
                spent[0] += first.usd(prompt, completion)
                spent[1] += prompt + completion
        with Spending(Path(folder), None, None, 2.5, 10.0) as reader:
            reader.settle("look", 0, 0)
            assert reader.total == (pytest.approx(spent[0] + lost[0]), spent[1] + lost[1])


def test_the_error_names_budget_spending_and_next_step(tmp_path):
    with Spending(tmp_path, 5.0, None, 2.0, 10.0) as spending:
        spending.settle(spending.reserve(990_000, 300_000), 990_000, 300_000)
        with pytest.raises(OverBudget) as caught:
            spending.reserve(5000, 2000)
    assert str(caught.value) == (
        "runtime.budget_usd=5.0: 4.98 USD are spent or reserved, and the next answer may cost 0.03 USD. Answers that "
        "arrived are kept: raise the budget and run the same command again"
    )
    with (
        Spending(tmp_path, None, 1_300_000) as other,
        pytest.raises(
            OverBudget, match=r"runtime.budget_tokens=1300000: 1290000 tokens are .* may cost 20000 tokens\."
        ),
    ):
        other.reserve(10_000, 10_000)


def test_without_a_budget_only_what_was_paid_is_written(tmp_path):
    with Spending(tmp_path, price_in=1.0, price_out=2.0) as spending:
        assert spending.reserve(1000, 1000) == ""
        spending.settle("", 0, 0)
        spending.settle("", 1000, 500)
        assert spending.total == (pytest.approx(0.002), 1500)
    assert len((tmp_path / FILE).read_text().splitlines()) == 1


def test_without_prices_only_tokens_are_counted(tmp_path):
    with Spending(tmp_path, price_in=1.0) as spending:
        assert spending.usd(5, 5) is None
        spending.settle("", 5, 5)
        assert spending.total == (0.0, 10)


def reservation(folder):
    """What a process that is killed leaves."""
    words = "from synthdiv.generate.spend import Spending; from pathlib import Path; import os, signal\n"
    words += f"Spending(Path({str(folder)!r}), None, 100).reserve(60, 0); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", words], cwd=ROOT)


def test_reservations_of_others_are_waited_for_and_those_of_dead_processes_settled_in_full(tmp_path):
    with Spending(tmp_path, None, 100) as one, Spending(tmp_path, None, 100) as two:
        name = one.reserve(60, 0)
        assert two.reserve(60, 0) is None, "it may be settled for less"
        one.settle(name, 10, 0)
        two.settle(two.reserve(60, 0), 10, 0)
    reservation(tmp_path)
    with Spending(tmp_path, None, 100) as one:
        with pytest.raises(OverBudget, match="80 tokens are spent or reserved"):
            one.reserve(60, 0)
        assert (one.settled, one.open) == ((0.0, 80), {})


def test_a_reservation_of_another_host_is_waited_for_as_long_as_a_request_takes(tmp_path, monkeypatch):
    with Spending(tmp_path, None, 100) as one, Spending(tmp_path, None, 100, patience=0.05) as two:
        monkeypatch.setattr(one, "_process", ["elsewhere", "", 1, 1.0])
        one.reserve(60, 0)
        assert two.reserve(60, 0) is None
        time.sleep(0.06)
        with pytest.raises(OverBudget):
            two.reserve(60, 0)
        assert two.total == (0.0, 60)
