"""The limits of a server and of a budget, against a server that fails on purpose."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.runtime import Server
from synthdiv.core.types import DataError
from synthdiv.generate import client as module
from synthdiv.generate.client import Client
from synthdiv.generate.limits import Limits
from synthdiv.generate.spend import Spending
from tests.generate.fault_server import FaultServer
from tests.generate.hosting import asks, chats, collected, server


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.05)


def test_after_a_429_no_request_starts_before_retry_after(monkeypatch):
    with FaultServer(share=1.0, kinds=("429",), most=1, retry_after="1.5") as fault:
        fault.asked.update({f"p{n}": 1 for n in range(1, 30)})  # only p0 is refused
        client = Client(server(fault, concurrency=2), "tiny-chat", "completions")
        actual = collected(client, asks(*(f"p{n}" for n in range(30))))
    assert len(actual) == 30
    gaps = [after - before for before, after in zip(fault.starts, fault.starts[1:], strict=False)]
    assert max(gaps) > 1.2, "all waited"


def test_a_429_holds_all_and_is_no_error_for_as_many_minutes_as_attempts(monkeypatch):
    """With nothing but 429 the waits grow; an answer to anybody begins the patience anew."""
    monkeypatch.setattr(module, "RATE_LIMIT_WINDOW", 0.35)
    never = {"error": {"message": "slow down"}}
    with FaultServer(rule=lambda _: (429, never)) as fault:
        client, got = Client(server(fault, attempts=2, concurrency=4), "tiny-chat", "completions"), []
        with pytest.raises(
            DataError, match=r"no answer to q\d after [45] attempts in 1 s; the last got HTTP 429: slow down"
        ):
            got.extend(reply for chunk in client.replies(asks(*"abcdefgh")) for _, reply in chunk)
    assert fault.asked.keys() == {*"abcd"}, "nobody beside those that wait"
    waves = fault.starts[::4]
    assert waves[3] - waves[2] > waves[2] - waves[1] > waves[1] - waves[0] > 0.04
    unanswered = [reply.account for reply in got]
    assert {account.attempts for account in unanswered} <= {4, 5}
    assert sum(account.attempts for account in unanswered) == client.attempts
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.01)
    with FaultServer(share=1.0, kinds=("429",), most=5, retry_after="0") as fault:
        client = Client(server(fault, attempts=3, concurrency=1), "tiny-chat", "completions")
        replies = collected(client, asks(*"abcde")).values()
        assert [reply.account.retries for reply in replies] == [{"429": 5}] * 5
    with FaultServer(share=1.0, kinds=("429",), retry_after="86400") as fault:
        client = Client(server(fault), "tiny-chat", "completions")
        with pytest.raises(DataError, match=r"after 1 attempts in 0 s; the last got HTTP 429: .*wait 86400 s"):
            collected(client, asks("say"))


@pytest.mark.parametrize("wait", ["86400", "inf"])
def test_a_wait_of_a_day_is_an_error_whatever_the_status(wait):
    """A server in maintenance would hold a launch, and its places in flight, until tomorrow."""
    with FaultServer(rule=lambda _: (503, {"error": {"message": "closed"}}), more=f"Retry-After: {wait}\r\n") as fault:
        client = Client(server(fault), "tiny-chat")
        with pytest.raises(DataError, match=rf"after 1 attempts .*HTTP 503: closed \(the server asks to wait {wait} s"):
            collected(client, chats("say"))


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 300)), max_size=60),
    st.none() | st.integers(1, 30),
    st.none() | st.integers(300, 1000),
)
def test_no_minute_has_more_than_the_limits(steps, requests, tokens):
    limits = Limits(Server("here", "http://x", requests_per_minute=requests, tokens_per_minute=tokens))
    now, starts = 0.0, []
    for wait, size in steps:
        now += wait
        starts.append((limits.start(size, now), size))
        assert starts[-1][0] >= now
    for begin, _ in starts:
        inside = [size for start, size in starts if begin <= start < begin + 60]
        assert requests is None or len(inside) <= requests
        assert tokens is None or sum(inside) <= tokens


def test_starts_are_spaced():
    with FaultServer() as fault:
        client = Client(server(fault, requests_per_minute=600), "tiny-chat", "completions")
        collected(client, asks(*"abcdef"))
    assert fault.starts[-1] - fault.starts[0] > 0.4


def test_no_more_are_in_flight_than_allowed_and_nothing_is_prepared_early():
    drawn = Counter()

    def lazily():
        for ask in asks(*(f"p{n}" for n in range(100))):
            drawn["asks"] += 1
            yield ask

    with FaultServer(latency=0.3) as fault:
        client = Client(server(fault, concurrency=7), "tiny-chat", "completions")
        chunks = client.replies(lazily())
        next(chunks)
        assert drawn["asks"] <= 7 * 5
        chunks.close()
        assert fault.peak == 7


def test_what_is_reserved_is_settled_by_what_it_cost(tmp_path):
    """An error of the server is free; where nobody knows, all that was reserved counts."""
    with FaultServer(share=1.0, kinds=("500",), most=1) as fault, Spending(tmp_path, None, 10_000) as spending:
        collected(Client(server(fault), "tiny-chat", "completions", spending), asks("say"))
        assert spending.total == (0.0, 9 + 3)
    with FaultServer(share=1.0, kinds=("cut",), most=1) as fault, Spending(tmp_path, None, 10_000) as spending:
        collected(Client(server(fault), "tiny-chat", "completions", spending), asks("say"))
        assert spending.total == (0.0, 2 * (9 + 3) + 3 + 64 + 10)


def test_a_small_budget_is_used_up_one_after_the_other(tmp_path):
    """Many at a time would reserve more than is left: they wait for each other."""
    with FaultServer() as fault, Spending(tmp_path, None, 120) as spending:
        client = Client(server(fault, concurrency=16), "tiny-chat", "completions", spending)
        got = []
        with pytest.raises(DataError, match=r"runtime\.budget_tokens=120"):
            got.extend(pair for chunk in client.replies(asks(*(f"p{n}1" for n in range(40)))) for pair in chunk)
        assert len(got) == 4  # of 12 each: 120 leave no room for the 77 that a fifth may cost
        assert spending.total == (0.0, 48)
