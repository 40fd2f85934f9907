"""What each failure means, and the limits of a server: against a server that fails on purpose."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.generate import client as module
from synthdiv.generate.client import Ask, Client, listed
from synthdiv.generate.hosted import Hosted
from synthdiv.generate.spend import Spending
from synthdiv.runtime import Server
from synthdiv.types import ConfigError, DataError
from tests.generate.fault_server import KINDS, FaultServer, text_of
from tests.models.small import cpu_run


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(module, "FIRST", 0.05)


def asks(*prompts, **payload):
    return [
        Ask(number, f"q{number}", {"model": "tiny-chat", "prompt": prompt} | payload, len(prompt), 10)
        for number, prompt in enumerate(prompts)
    ]


def server(fault, **fields):
    return Server(**{"name": "here", "url": fault.url, "timeout_seconds": 5.0} | fields)


def collected(client, wanted):
    return {ask.name: reply for chunk in client.ask(wanted) for ask, reply in chunk}


def test_the_completions_endpoint_answers_too():
    with FaultServer() as fault:
        found = collected(Client(server(fault), "tiny-chat", "completions"), asks("one", "two"))
    assert {name: reply.data["choices"][0]["text"] for name, reply in found.items()} == {
        "q0": text_of("one"),
        "q1": text_of("two"),
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "duplicate"])
def test_each_failure_that_may_pass_is_tried_again_and_counted(kind):
    with FaultServer(share=1.0, kinds=(kind,), most=1) as fault:
        client = Client(server(fault, timeout_seconds=0.5), "tiny-chat", "completions")
        (reply,) = collected(client, asks("say")).values()
        assert fault.asked["say"] == client.requests == reply.attempts == 2
    cause = {"slow": "timeout", "cut": "connection", "dropped": "connection"} | dict.fromkeys(
        ("truncated", "empty"), "invalid"
    )
    assert client.retries == {cause.get(kind, kind): 1}
    assert reply.data["choices"][0]["text"] == text_of("say")


@pytest.mark.parametrize(("status", "tries"), [(408, 2), (409, 2), (429, 2), (503, 2), (400, 1), (401, 1), (403, 1)])
def test_only_what_may_pass_is_tried_again(status, tries):
    with FaultServer(rule=lambda _: (status, {"error": {"message": "no such thing"}})) as fault:
        client = Client(server(fault, attempts=2), "tiny-chat", "completions")
        with pytest.raises((DataError, ConfigError)) as caught:
            collected(client, asks("say"))
        assert fault.asked["say"] == tries
    told = str(caught.value)
    assert told.startswith(f"server here ({fault.url})")
    if tries == 2:
        assert f"no answer to q0 after 2 attempts; the last got HTTP {status}: " in told
    if status == 400:
        assert told == f"server here ({fault.url}) refuses q0 (400): no such thing"


def test_an_account_without_money_is_told_at_once():
    with FaultServer(rule=lambda _: (429, {"error": {"message": "pay", "code": "insufficient_quota"}})) as fault:
        with pytest.raises(DataError, match="nothing left"):
            collected(Client(server(fault), "tiny-chat", "completions"), asks("say"))
        assert fault.asked["say"] == 1


def test_an_unknown_model_shows_the_list():
    with (
        FaultServer(rule=lambda _: (404, {"error": {"message": "no model"}})) as fault,
        pytest.raises(DataError, match=r"does not know tiny-chat .*it has other-chat, tiny-chat"),
    ):
        collected(Client(server(fault), "tiny-chat", "completions"), asks("say"))


def test_after_a_429_nobody_starts_before_the_time_it_names(monkeypatch):
    with FaultServer(share=1.0, kinds=("429",), most=1, retry_after="1.5") as fault:
        fault.asked.update({f"p{n}": 1 for n in range(1, 30)})  # only p0 is refused
        client = Client(server(fault, concurrency=2), "tiny-chat", "completions")
        found = collected(client, asks(*(f"p{n}" for n in range(30))))
    assert len(found) == 30
    gaps = [after - before for before, after in zip(fault.starts, fault.starts[1:], strict=False)]
    assert max(gaps) > 1.2, "all waited"


def test_a_parameter_that_is_refused_is_left_out_or_sent_by_its_other_name():
    def rule(body):
        for name in ("seed", "max_tokens"):
            if name in body:
                return 400, {"error": {"message": f"Unsupported parameter: '{name}'", "param": name}}
        return None

    with FaultServer(rule=rule) as fault:
        client = Client(server(fault), "tiny-chat", "completions")
        assert len(collected(client, asks("say", "tell", seed=3, max_tokens=5))) == 2
    assert client.endpoint.refused == {"seed", "max_tokens"}
    assert "seed" not in fault.bodies[-1]
    assert fault.bodies[-1]["max_completion_tokens"] == 5


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 300)), max_size=60),
    st.none() | st.integers(1, 30),
    st.none() | st.integers(300, 1000),
)
def test_no_minute_has_more_than_the_limits(steps, requests, tokens):
    client = Client(Server("here", "http://x", requests_per_minute=requests, tokens_per_minute=tokens), "m")
    now, starts = 0.0, []
    for wait, size in steps:
        now += wait
        starts.append((client._slot(size, now), size))
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
        chunks = client.ask(lazily())
        next(chunks)
        assert drawn["asks"] <= 7 * 5
        chunks.close()
        assert fault.peak == 7


def test_what_is_in_flight_has_its_time_when_asked_to_stop(monkeypatch):
    monkeypatch.setattr(module, "TICK", 0.05)
    monkeypatch.setattr(module, "GRACE", 0.3)
    with FaultServer(latency=0.15) as fault:
        client = Client(server(fault, concurrency=3), "tiny-chat", "completions")
        got = [ask.name for chunk in client.ask(asks(*"abcdefghi"), lambda: True) for ask, _ in chunk]
        assert sorted(got) == ["q0", "q1", "q2"]
    with FaultServer(latency=30) as fault:
        client = Client(server(fault, concurrency=3), "tiny-chat", "completions")
        begun = time.monotonic()
        assert [pair for chunk in client.ask(asks(*"abcdefghi"), lambda: True) for pair in chunk] == []
        assert time.monotonic() - begun < 10


def test_an_error_comes_after_what_was_in_flight(monkeypatch):
    def rule(body):
        return (400, {"error": {"message": "too long"}}) if body["prompt"] == "b" else None

    with FaultServer(latency=0.2, rule=rule) as fault:
        client = Client(server(fault, concurrency=3), "tiny-chat", "completions")
        got = []
        with pytest.raises(DataError, match=r"refuses q1 \(400\): .*too long"):
            got.extend(ask.name for chunk in client.ask(asks(*"abc")) for ask, _ in chunk)
    assert fault.asked.total() == 3
    assert sorted(got) == ["q0", "q2"]


def test_a_mistake_of_the_caller_ends_the_thread():
    def broken():
        yield from asks("a")
        raise ZeroDivisionError

    with FaultServer() as fault, pytest.raises(ZeroDivisionError):
        collected(Client(server(fault), "tiny-chat", "completions"), broken())


def test_a_server_that_is_down_is_named_with_the_attempts():
    run = cpu_run(servers=[Server("gone", "http://127.0.0.1:9/v1", attempts=2)])
    told = r"server gone \(http://127.0.0.1:9/v1\): no answer to .* after 2 attempts; .*Connect call failed"
    with pytest.raises(DataError, match=told):
        listed(Hosted("gone", "tiny-chat"), run)


def test_the_list_of_models(monkeypatch):
    with FaultServer() as fault:
        run = cpu_run(servers=[server(fault)])
        assert listed(Hosted("here", "tiny-chat"), run)
        with pytest.raises(DataError, match=r"server here .* hosted.id=huge-chat; it has other-chat, tiny-chat"):
            listed(Hosted("here", "huge-chat"), run)
        fault.models = tuple(f"m{n:03}" for n in range(50))
        with pytest.raises(DataError, match=r"m000, .*, m039 and 10 more"):
            listed(Hosted("here", "huge-chat"), run)
        for nothing in ((), None):
            fault.models = nothing
            assert not listed(Hosted("here", "tiny-chat"), run)
        with pytest.raises(ConfigError, match=r"hosted.server=there: .* there are here"):
            listed(Hosted("there", "tiny-chat"), run)


def test_a_key_is_asked_for_by_name_and_never_shown(monkeypatch):
    with FaultServer(key="sk-right") as fault:
        run = cpu_run(servers=[server(fault, key="TEST_KEY")])
        for value, told in ((None, "is not set"), (" ", "is not set"), ("sk-a\nb", "has characters that no key has")):
            monkeypatch.delenv("TEST_KEY", raising=False)
            if value is not None:
                monkeypatch.setenv("TEST_KEY", value)
            with pytest.raises(ConfigError, match=f"TEST_KEY {told}") as caught:
                listed(Hosted("here", "tiny-chat"), run)
        monkeypatch.setenv("TEST_KEY", "sk-old-and-secret")
        with pytest.raises(
            ConfigError, match=r"refuses the key in the environment variable TEST_KEY \(401\)"
        ) as caught:
            listed(Hosted("here", "tiny-chat"), run)
        assert "sk-old" not in str(caught.value)
        assert fault.asked["without the key"] == 1
        monkeypatch.setenv("TEST_KEY", "sk-right\n")
        assert listed(Hosted("here", "tiny-chat"), run)
        fault.rule = lambda _: (400, {"error": {"message": "you sent sk-right"}})
        with pytest.raises(DataError, match=r"you sent \*\*\*"):
            collected(Client(server(fault, key="TEST_KEY"), "tiny-chat", "completions"), asks("say"))


def test_what_is_reserved_is_settled_by_what_it_cost(tmp_path):
    """An error of the server is free; where nobody knows, all that was reserved counts."""
    with FaultServer(share=1.0, kinds=("500",), most=1) as fault, Spending(tmp_path, None, 10_000) as spending:
        collected(Client(server(fault), "tiny-chat", "completions", spending), asks("say"))
        assert spending.total == (0.0, 9 + 3)
    with FaultServer(share=1.0, kinds=("cut",), most=1) as fault, Spending(tmp_path, None, 10_000) as spending:
        collected(Client(server(fault), "tiny-chat", "completions", spending), asks("say"))
        assert spending.total == (0.0, 2 * (9 + 3) + 3 // 2 + 32 + 10)


def test_a_small_budget_is_used_up_one_after_the_other(tmp_path):
    """Many at a time would reserve more than is left: they wait for each other."""
    with FaultServer() as fault, Spending(tmp_path, None, 120) as spending:
        client = Client(server(fault, concurrency=16), "tiny-chat", "completions", spending)
        got = []
        with pytest.raises(DataError, match=r"runtime\.budget_tokens=120"):
            got.extend(pair for chunk in client.ask(asks(*(f"p{n}1" for n in range(40)))) for pair in chunk)
        assert len(got) == 7  # of 12 each: 120 leave no room for the 44 that an eighth may cost
        assert spending.total == (0.0, 84)
