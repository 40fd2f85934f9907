"""What each failure means, and the limits of a server: against a server that fails on purpose."""

from __future__ import annotations

import gzip
import os
import resource
import time

import pytest

from synthdiv.core.runtime import Server
from synthdiv.core.types import ConfigError, DataError, Unavailable
from synthdiv.generate import client as module
from synthdiv.generate import endpoint, replies
from synthdiv.generate.client import Client
from synthdiv.generate.hosted import Hosted, listed
from synthdiv.generate.replies import ApiRequest
from synthdiv.generate.spend import Spending
from tests.generate.fault_server import KINDS, FaultServer, completion, text_of
from tests.generate.hosting import asks, chats, collected, server
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
        assert fault.asked["say"] == client.attempts == reply.account.attempts == 2
    cause = {"slow": "timeout", "cut": "connection", "dropped": "connection"} | dict.fromkeys(
        ("truncated", "empty"), "invalid"
    )
    assert reply.account.retries == {cause.get(kind, kind): 1}
    unsure = kind in ("slow", "cut", "dropped", "truncated", "invalid")
    assert (reply.account.unsure, reply.account.max_tokens) == ((1, (3 + 64, 10)) if unsure else (0, (0, 0)))
    assert reply.account.usage == ((18, 6) if kind in ("empty", "finish") else (9, 3))
    assert reply.data["choices"][0]["text"] == text_of("say")


@pytest.mark.parametrize(
    ("status", "tries"),
    [*((status, 2) for status in (408, 409, 425, 498, 503)), *((status, 1) for status in (400, 401, 402, 403))],
)
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


def refusing(*names):
    """A server that has none of these parameters."""

    def rule(body):
        here = [name for name in names if name in body]
        message = f"Unsupported parameter: {here} is not supported with this model"
        return (400, {"error": {"message": message, "param": here[0]}}) if here else None

    return rule


def test_what_a_server_refuses_is_learnt_once_for_a_source():
    """Values that change nothing and parameters that are optional are left out, or sent by their other name."""
    sent = {"seed": 3, "max_tokens": 5, "top_p": 1.0, "temperature": 0.7}
    with FaultServer(rule=refusing("seed", "max_tokens", "top_p"), latency=0.02) as fault:
        client = Client(server(fault), "tiny-chat")
        for _ in range(2):  # two shards
            assert len(collected(client, chats(*"abcdefgh", **sent))) == 8
    assert len(fault.bodies) == 16 + 3
    assert client.endpoint.refused == {"seed", "max_tokens", "top_p"}
    assert fault.bodies[-1].keys() == {"model", "messages", "temperature", "max_completion_tokens"}


def test_a_refusal_of_a_value_that_matters_is_an_error():
    with FaultServer(rule=refusing("top_p")) as fault:
        with pytest.raises(DataError, match=r"refuses sampling.top_p=0.9 for tiny-chat: Unsupported .*neutral value"):
            collected(Client(server(fault), "tiny-chat"), chats("say", top_p=0.9))
        assert len(fault.bodies) == 1


def test_another_model_is_refused_at_its_first_answer_unless_it_is_accepted_by_name(tmp_path):
    def rule(body):
        return 200, completion(body, "x", ("stop", "length")) | {"model": "tiny-chat-0613"}

    with FaultServer(rule=rule, latency=0.02) as fault, Spending(tmp_path) as spending:
        with pytest.raises(DataError, match=r"tiny-chat-0613, not tiny-chat\. .*reports=\[tiny-chat-0613\]"):
            collected(Client(server(fault), "tiny-chat", "chat", spending), chats(*"abcdefgh"))
        assert len(fault.bodies) == 1
        assert spending.total == (0.0, 12), "it is paid"
        accepted = Client(server(fault), "tiny-chat", reports=["tiny-chat-0613"])
        assert len(collected(accepted, chats(*"abcdefgh"))) == 8


@pytest.mark.parametrize("case", ["another model", "oversized"])
def test_an_answer_of_unknown_cost_counts_with_the_most_that_it_can_cost(tmp_path, monkeypatch, case):
    monkeypatch.setattr(endpoint, "MOST_BYTES", 2**14)

    def rule(body):
        return 200, {"model": "dear-chat", "choices": completion(body, "x", ("stop", "length"))["choices"]}

    raw = b" " * 2**16 if case == "oversized" else b""
    with FaultServer(rule=rule, raw=raw) as fault, Spending(tmp_path, budget_tokens=9999) as spending:
        with pytest.raises(DataError, match=r"more than|reports the model"):
            collected(Client(server(fault), "tiny-chat", "chat", spending), chats("say"))
        assert spending.total == (0.0, 9 + 64 + 10)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status):
    with FaultServer() as other, FaultServer(rule=lambda _: (status, {})) as fault:
        fault.more = f"Location: {other.url}/chat/completions?key=secret\r\n"
        with pytest.raises(DataError, match=rf"redirects to http://127.0.0.1:\d+ \({status}\), where no prompt"):
            collected(Client(server(fault), "tiny-chat"), chats("say"))
        assert other.asked.total() == 0


@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_that_is_too_large_is_a_clear_error(packed, monkeypatch):
    monkeypatch.setattr(endpoint, "MOST_BYTES", 2**20)
    raw = b" " * 2**24
    with FaultServer() as fault:
        fault.more = "Content-Encoding: gzip\r\n" if packed else ""
        fault.raw = gzip.compress(raw) if packed else raw
        with pytest.raises(DataError, match="an answer of more than 1 MiB"):
            collected(Client(server(fault), "tiny-chat"), chats("say"))


def test_deep_json_is_no_answer():
    with (
        FaultServer(raw=b"[" * 2**18) as fault,
        pytest.raises(Unavailable, match="an answer that is not JSON"),
    ):
        collected(Client(server(fault, attempts=1), "tiny-chat", "completions"), asks("say"))


def test_too_many_open_files_are_called_that():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with FaultServer() as fault:
        client = Client(server(fault, concurrency=64), "tiny-chat", "completions")
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, limits[1]))
        try:
            with pytest.raises(DataError, match=r"too many open files. .*ulimit -n.*concurrency=64"):
                collected(client, asks(*map(str, range(64))))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("cause", ["prompt", "server"])
@pytest.mark.parametrize("prompts", ["abc", "b"])
def test_a_prompt_that_fails_for_ever_is_told_from_a_server_that_fails(cause, prompts):
    """Alone in its session too: another prompt is asked."""

    def rule(body):
        broken = cause == "server" or body["messages"][-1]["content"] == "b"
        return (500, {"error": {"message": "it broke"}}) if broken else None

    with FaultServer(rule=rule) as fault:
        client = Client(server(fault, attempts=2), "tiny-chat")
        if cause == "server":
            with pytest.raises(Unavailable, match="HTTP 500: it broke"):
                collected(client, chats(*prompts))
            return
        replies = [reply for chunk in client.replies(chats(*prompts)) for _, reply in chunk]
    assert len(replies) == len(prompts)
    (failed,) = (reply for reply in replies if not reply.data)
    assert (failed.outcome, failed.message) == ("failed", "HTTP 500: it broke (2 attempts)")


@pytest.mark.parametrize("outage", ["500", "invalid", "timeout"])
def test_an_outage_in_the_middle_of_a_run_is_the_fault_of_no_prompt(outage):
    """Other prompts were answered between its first attempt and its last, and then none."""
    sent = iter(range(999))

    def rule(body):
        if next(sent) < 6:
            return None
        fault.latency = 9.0 if outage == "timeout" else 0.02
        return {"500": (500, {"error": {"message": "down"}}), "invalid": (200, {"choices": []})}.get(outage)

    with FaultServer(rule=rule, latency=0.02) as fault:
        own = server(fault, attempts=3, concurrency=8, timeout_seconds=0.3 if outage == "timeout" else 5.0)
        replies, chunks = [], Client(own, "tiny-chat").replies(chats(*map(str, range(60))))
        with pytest.raises(Unavailable, match=r"after [34] attempts"):
            replies.extend(reply for chunk in chunks for _, reply in chunk)
    assert {reply.outcome for reply in replies} == {""}
    assert 0 < sum(bool(reply.data) for reply in replies) <= 6 + 8


def test_requests_in_flight_have_a_grace_period_on_stop(monkeypatch):
    monkeypatch.setattr(replies, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(module, "STOP_GRACE_SECONDS", 0.3)
    with FaultServer(latency=0.15) as fault:
        client = Client(server(fault, concurrency=3), "tiny-chat", "completions")
        assert sorted(collected(client, asks(*"abcdefghi"), lambda: True)) == ["q0", "q1", "q2"]
    with FaultServer(latency=30) as fault:
        client = Client(server(fault, concurrency=3), "tiny-chat", "completions")
        begun = time.monotonic()
        assert collected(client, asks(*"abcdefghi"), lambda: True) == {}
        assert time.monotonic() - begun < 10


def test_an_error_comes_after_what_was_in_flight(monkeypatch):
    def rule(body):
        return (400, {"error": {"message": "too long"}}) if body["prompt"] == "b" else None

    with FaultServer(latency=0.2, rule=rule) as fault:
        client = Client(server(fault, concurrency=3), "tiny-chat", "completions")
        got = []
        with pytest.raises(DataError, match=r"refuses q1 \(400\): .*too long"):
            got.extend(ask.name for chunk in client.replies(asks(*"abc")) for ask, reply in chunk if reply.data)
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
