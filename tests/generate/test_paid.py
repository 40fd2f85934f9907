"""What is paid is in the manifest, and no more than the budget."""

from __future__ import annotations

import json

import pytest

from synthdiv.core.types import DataError
from synthdiv.generate import client
from synthdiv.generate.answer import ROWS
from synthdiv.generate.generate import read_log
from synthdiv.generate.spend import FILE as SPENT
from synthdiv.generate.spend import Spending
from tests.generate.fault_server import FaultServer
from tests.generate.hosting import answered, built_prompts


@pytest.fixture(scope="module")
def prompts(root):
    return built_prompts(root)


def until_built(make):
    """The finished shard, each session going on where an error ended the one before; and how many there were."""
    for session in range(1, 20):
        try:
            return make(), session
        except DataError:
            pass
    raise AssertionError("it never ends")


def test_the_manifest_has_what_was_paid_in_all_sessions(prompts, folder, monkeypatch):
    """Answers that broke off may be paid; rows that were asked in vain too."""
    monkeypatch.setattr(client, "FIRST_BACKOFF", 0.01)
    kinds = ("cut", "dropped")
    own = {"rows": 20, "concurrency": 8, "attempts": 2}
    with FaultServer(share=1.0, kinds=kinds, most=2, seed=1) as fault:
        prices = {"price_in": 1.0, "price_out": 10.0}
        done, sessions = until_built(
            lambda: answered(folder, fault, prompts, prices=prices, budget_usd=9.0, **own),
        )
    assert sessions > 2
    summary, log = done.manifest["summary"], read_log(done.path)
    assert summary["requests"] == len(fault.bodies) == 20 + sum(summary["retries"].values()) == 60
    assert [line["attempts"] for line in log] == [3] * 20
    assert (summary["prompt_tokens"], summary["completion_tokens"]) == (11 * 20, 5 * 20)
    assert summary["usd"] == pytest.approx(20 * 61e-6) == pytest.approx(sum(line["usd"] for line in log))
    assert summary["unsure"]["attempts"] == summary["retries"]["connection"] == 40
    assert spent(folder) == pytest.approx(summary["usd"] + summary["unsure"]["usd"])


def spent(folder):
    with Spending(folder) as spending:
        spending.settle("look", 0, 0)
        return spending.total[0]


def test_unreported_usage_is_unknown_and_not_free(prompts, folder):
    """And one of another dialect: a bare list of models, and an end by another name."""
    with FaultServer(counts=False, bare=True, ends=("eos", "max_tokens")) as fault:
        done = answered(
            folder, fault, prompts, rows=20, prices={"price_in": 1.0, "price_out": 10.0}, budget_tokens=10**6
        )
    summary = done.manifest["summary"]
    assert summary["finish"].keys() <= {"stop", "length"}
    assert summary["without_usage"] == summary["unsure"]["attempts"] == 20
    assert summary.keys().isdisjoint(["usd", "prompt_tokens", "completion_tokens"])
    assert all(line.keys().isdisjoint(["usd", "usage"]) for line in read_log(done.path))
    assert spent(folder) == pytest.approx(summary["unsure"]["usd"])
    assert spent(folder) > 20 * 20 * 10e-6


def test_prompts_without_a_system_role_are_counted_in_all_sessions(prompts, folder):
    broken = []

    def rule(body):
        if body["messages"][0]["role"] == "system":
            return 400, {"error": {"message": "System role not supported"}}
        broken.append(body)
        return (418, {"error": {"message": "not now"}}) if len(broken) == 8 else None

    with FaultServer(rule=rule) as fault:
        done, sessions = until_built(lambda: answered(folder, fault, prompts, rows=20, concurrency=2))
        plain = answered(folder, FaultServer(url=fault.url), prompts, rows=20, concurrency=2)
    assert sessions == 2
    summary = done.manifest["summary"]
    assert summary["system_folded"] == sum(line["folded"] for line in read_log(done.path)) == 20
    assert summary["retries"]["parameter"] == 1, "learnt once in this process"
    assert fault.bodies[-1]["messages"][0]["content"].startswith("Be brief.\n\n")
    assert plain.key == done.key, "what a server takes is no identity"


def test_a_budget_stops_before_it_is_crossed_and_goes_on_when_raised(prompts, folder):
    prices = {"price_in": 1000.0, "price_out": 1000.0}  # 0.016 USD an answer, 0.12 at most
    with FaultServer(latency=0.002) as fault:
        with pytest.raises(
            DataError, match=r"runtime\.budget_usd=0.8: 0\.\d* USD are spent or reserved.*raise the budget"
        ):
            answered(folder, fault, prompts, rows=84, prices=prices, budget_usd=0.8)
        (partial,) = (folder / "artifacts/generate").glob(".*/*.partial")
        kept = len((partial / ROWS).read_text().splitlines())
        settled = [json.loads(line) for line in (folder / SPENT).read_text().splitlines()]
        settled = [line["usd"] for line in settled if "settle" in line]
        assert kept == fault.asked.total() - 1 == len(settled)
        assert sum(settled) == pytest.approx(kept * 0.016)
        assert kept > 40, "it is nearly used up"
        with pytest.raises(DataError, match=r"runtime\.budget_usd=0.8"):
            answered(folder, fault, prompts, rows=84, prices=prices, budget_usd=0.8)
        assert fault.asked.total() - 1 == kept, "nothing more was asked"
        done = answered(folder, fault, prompts, rows=84, prices=prices, budget_usd=2.0)
        assert fault.asked.total() - 1 == 84
    assert done.manifest["summary"]["usd"] == pytest.approx(84 * 0.016), "the rows of all sessions"
