"""What each failure means, and the limits of a server: against a server that fails on purpose."""

from __future__ import annotations

import time

import pytest

from synthdiv.core.runtime import Server
from synthdiv.core.types import ConfigError, DataError, Unavailable
from synthdiv.generate import client as module
from synthdiv.generate.client import ApiRequest, Client
from synthdiv.generate.hosted import Hosted, listed
from tests.generate.fault_server import KINDS, FaultServer, text_of
from tests.generate.hosting import asks, collected, server
from tests.models.small import cpu_run


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.05)


def test_the_completions_endpoint_answers_too():
    with FaultServer() as fault:
        actual = collected(Client(server(fault), "tiny-chat", "completions"), asks("one", "two"))
    assert {name: reply.data["choices"][0]["text"] for name, reply in actual.items()} == {
        "q0": text_of("one"),
        "q1": text_of("two"),
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "duplicate"])
def test_each_transient_failure_is_retried_and_counted(kind):
    with FaultServer(share=1.0, kinds=(kind,), most=1) as fault:
        client = Client(server(fault, timeout_seconds=0.5), "tiny-chat", "completions")
        (reply,) = collected(client, asks("say")).values()
        assert fault.asked["say"] == client.attempts == reply.attempts == 2
    cause = {"slow": "timeout", "cut": "connection", "dropped": "connection"} | dict.fromkeys(
        ("truncated", "empty"), "invalid"
    )
    assert client.retries == reply.account.retries == {cause.get(kind, kind): 1}
    unsure = kind in ("slow", "cut", "dropped", "truncated", "invalid")
    assert (reply.account.unsure, reply.account.max_tokens) == ((1, (3 + 64, 10)) if unsure else (0, (0, 0)))
    assert reply.account.usage == ((18, 6) if kind in ("empty", "model", "finish") else (9, 3))
    assert reply.data["choices"][0]["text"] == text_of("say")


@pytest.mark.parametrize(("status", "tries"), [(408, 2), (409, 2), (503, 2), (400, 1), (401, 1), (402, 1), (403, 1)])
def test_only_transient_failures_are_retried(status, tries, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "k")
    with FaultServer(rule=lambda _: (status, {"error": {"message": "no such thing"}})) as fault:
        client = Client(server(fault, attempts=2, key="TEST_KEY"), "tiny-chat", "completions")
        with pytest.raises((DataError, ConfigError)) as caught:
            collected(client, asks("say"))
        assert fault.asked["say"] == tries
    message = str(caught.value)
    assert isinstance(caught.value, Unavailable) == (tries == 2 or status == 402)
    assert message.startswith(f"server here ({fault.url})")
    says = {
        400: "refuses q0 (400): no such thing. If only this prompt is rejected, leave it out (prompts.table.where), or",
        401: "rejects the key in the environment variable TEST_KEY (401)",
        402: "the account has no credit left (no such thing)",
        403: "(403): no such thing. The cause may be the prompt, the region or the key in the environment variable",
    }
    assert says.get(status, f"no answer to q0 after 2 attempts in 0 s; the last got HTTP {status}: no such") in message


def test_an_unsupported_system_role_is_sent_in_the_user_turn():
    def rule(body):
        if body["messages"][0]["role"] == "system":
            return 400, {"error": {"message": "System role not supported"}}
        return None

    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    wanted = [ApiRequest(n, f"q{n}", {"model": "tiny-chat", "messages": turns}, 14, 10) for n in range(9)]
    with FaultServer(rule=rule) as fault:
        actual = collected(Client(server(fault, concurrency=1), "tiny-chat"), wanted)
        assert fault.asked["Hello"] == 1, "tried once"
    assert all(reply.folded for reply in actual.values())
    assert fault.bodies[-1]["messages"] == [{"role": "user", "content": "Be brief.\n\nHello"}]
    assert actual["q0"].account.retries == {"parameter": 1}


def test_loopback_requests_use_no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with FaultServer() as fault:
        for url in (fault.url, fault.url.replace("127.0.0.1", "localhost")):
            assert collected(Client(server(fault, url=url), "tiny-chat", "completions"), asks("say"))
        world = Client(server(fault, url="http://synthdiv.invalid/v1", attempts=1), "tiny-chat", "completions")
        with pytest.raises(DataError, match=r"127\.0\.0\.1.*9"):
            collected(world, asks("say"))


def test_an_account_without_credit_fails_at_once():
    with FaultServer(rule=lambda _: (429, {"error": {"message": "pay", "code": "insufficient_quota"}})) as fault:
        with pytest.raises(DataError, match="no credit left"):
            collected(Client(server(fault), "tiny-chat", "completions"), asks("say"))
        assert fault.asked["say"] == 1


def test_an_unknown_model_shows_the_list():
    with (
        FaultServer(rule=lambda _: (404, {"error": {"message": "no model"}})) as fault,
        pytest.raises(DataError, match=r"does not know tiny-chat .*it has other-chat, tiny-chat"),
    ):
        collected(Client(server(fault), "tiny-chat", "completions"), asks("say"))


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


def test_requests_in_flight_have_a_grace_period_on_stop(monkeypatch):
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(module, "STOP_GRACE_SECONDS", 0.3)
    with FaultServer(latency=0.15) as fault:
        client = Client(server(fault, concurrency=3), "tiny-chat", "completions")
        got = [ask.name for chunk in client.replies(asks(*"abcdefghi"), lambda: True) for ask, _ in chunk]
        assert sorted(got) == ["q0", "q1", "q2"]
    with FaultServer(latency=30) as fault:
        client = Client(server(fault, concurrency=3), "tiny-chat", "completions")
        begun = time.monotonic()
        assert [pair for chunk in client.replies(asks(*"abcdefghi"), lambda: True) for pair in chunk] == []
        assert time.monotonic() - begun < 10


def test_an_error_comes_after_what_was_in_flight(monkeypatch):
    def rule(body):
        return (400, {"error": {"message": "too long"}}) if body["prompt"] == "b" else None

    with FaultServer(latency=0.2, rule=rule) as fault:
        client = Client(server(fault, concurrency=3), "tiny-chat", "completions")
        got = []
        with pytest.raises(DataError, match=r"refuses q1 \(400\): .*too long"):
            got.extend(ask.name for chunk in client.replies(asks(*"abc")) for ask, _ in chunk)
    assert fault.asked.total() == 3
    assert sorted(got) == ["q0", "q2"]


def test_an_error_of_the_caller_ends_the_thread():
    def broken():
        yield from asks("a")
        raise ZeroDivisionError

    with FaultServer() as fault, pytest.raises(ZeroDivisionError):
        collected(Client(server(fault), "tiny-chat", "completions"), broken())


def test_a_server_that_is_down_is_named_with_the_attempts():
    run = cpu_run(servers=[Server("gone", "http://127.0.0.1:9/v1", attempts=2)])
    message = r"server gone \(http://127.0.0.1:9/v1\): no answer to .* after 2 attempts in 0 s; .*Connect call failed"
    with pytest.raises(DataError, match=message):
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
        fault.bare = True
        with pytest.raises(DataError, match=r"m000, .*, m039 and 10 more"):
            listed(Hosted("here", "huge-chat"), run)
        for nothing in ((), None):
            fault.models = nothing
            assert not listed(Hosted("here", "tiny-chat"), run)
        with pytest.raises(ConfigError, match=r"hosted.server=there: .* choose one of here"):
            listed(Hosted("there", "tiny-chat"), run)
