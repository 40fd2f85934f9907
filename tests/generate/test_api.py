"""Every row arrives once, whatever the server, a signal or a budget does in between; and a key is in no file."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from synthdiv.generate import client
from synthdiv.generate.answer import LOG, ROWS
from synthdiv.generate.hosted import Hosted
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.generate.spend import FILE as SPENT
from synthdiv.generate.stage import Generate, Side, read_log, read_samples
from synthdiv.prompts.stage import Prompts, read_prompts
from synthdiv.prompts.table import Columns, Table
from synthdiv.resolve import Resolver
from synthdiv.runtime import Server, Stop
from synthdiv.types import ConfigError, DataError, Stopped
from tests.conftest import FILES, ROOT, synthdiv, write_files, write_rows
from tests.generate.fault_server import FaultServer, text_of
from tests.models.small import build, cpu_run

SAMPLING = Sampling(0.7, 0.9, 20)


@pytest.fixture(scope="module")
def prompts(root):
    """1,000 test prompts, and 1,016 to train on."""
    names = [hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(2016)]
    rows = [{"id": f"q{n}", "prompt": f"{name[:9]} {name[9:18]} {n}"} for n, name in enumerate(names)]
    write_rows(root / "prompts.jsonl", rows)
    return build(root, prompt_stage(root))


def prompt_stage(root):
    table = Table(str(root / "prompts.jsonl"), columns=Columns(id="id", response=None))
    stage = Prompts(table=table, test=1000, system="Be brief.")
    stage.resolve(Resolver(root / "outputs"))
    return stage


@pytest.fixture
def folder(root, prompts, tmp_path):
    """Where one test builds: the prompts are there."""
    shutil.copytree(root / "artifacts", tmp_path / "artifacts")
    return tmp_path


def run_of(fault, folder, **runtime):
    own = {name: runtime.pop(name) for name in Server.__dataclass_fields__ if name in runtime}
    server = Server(**{"name": "here", "url": fault.url, "concurrency": 64, "timeout_seconds": 5.0} | own)
    return cpu_run(servers=[server], outputs=str(folder), **runtime)


def hosted(folder, run, **prices):
    return build(folder, Hosted("here", "tiny-chat", **prices), run=run)


def stage(rows=0, **fields):
    """A shard of so many train prompts, or all test prompts."""
    side = {"rows": 12 * rows, "shard_rows": rows} if rows else {"side": Side.test, "rows": 1000}
    return Generate(**{"source": "oak", "backend": Backend.api, "sampling": SAMPLING} | side | fields)


def answered(folder, fault, prompts, *, rows=0, prices=None, **runtime):
    """The finished shard, built in a store below `folder`."""
    run = run_of(fault, folder, **runtime)
    return build(folder, stage(rows), prompts, hosted(folder, run, **prices or {}), run=run)


def test_a_fifth_of_requests_fails_and_every_row_arrives_once_in_order(prompts, folder, monkeypatch):
    monkeypatch.setattr(client, "FIRST", 0.2)
    with FaultServer(latency=0.01, share=0.2, seed=3) as fault:
        done = answered(folder, fault, prompts, prices={"price_in": 1.0, "price_out": 10.0}, timeout_seconds=0.8)
    rows, log = read_samples(done.path), read_log(done.path)
    asked = read_prompts(prompts, "test")
    assert [row.id for row in rows] == [line["id"] for line in log] == [row["id"] for row in asked]
    assert all(row.response == text_of(row.prompt) for row in rows)
    assert all(row.finish == ("length" if row.prompt.endswith("0") else "stop") for row in rows)
    assert all((row.prompt_tokens, row.response_tokens) == (11, 5) for row in rows)
    assert len({row.seed for row in rows}) == 1000
    summary = done.manifest["summary"]
    assert summary["requests"] == len(fault.bodies) == 1000 + sum(summary["retries"].values())
    assert set(summary["retries"]) == {"429", "500", "timeout", "connection", "invalid", "model", "finish"}
    assert summary["models"] == {"tiny-chat-2026-01-01": 1000}
    assert summary["fingerprints"] == {"fp_1": 1000}
    assert (summary["prompt_tokens"], summary["completion_tokens"]) == (11_000, 5000)
    assert summary["usd"] == pytest.approx(0.011 + 0.05)
    assert summary["finish"] == Counter(row.finish for row in rows)
    one = log[0]
    assert one["usage"] == {"prompt": 11, "completion": 5}
    assert one["usd"] == pytest.approx(61e-6)
    assert abs(one["at"] - time.time()) < 600
    assert one["seconds"] >= 0.01
    assert one["fingerprint"] == "fp_1"
    assert one["model"] == "tiny-chat-2026-01-01"
    assert max(line["attempts"] for line in log) > 1
    body = fault.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.9, 20)
    assert 0 <= body["seed"] < 2**31
    assert "logprobs" not in body


def test_a_refusal_is_an_outcome_and_no_text(prompts, folder):
    def rule(body):
        text = body["messages"][-1]["content"]
        number = int(text.split()[-1]) % 4
        choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": None}}
        if number == 0:
            return 400, {"error": {"message": "our policy", "code": "content_policy_violation"}}
        if number == 1:
            choice["message"]["refusal"] = "I cannot"
        if number == 2:
            choice |= {"finish_reason": "content_filter", "message": {"content": "Half of"}}
        if number == 3:
            choice["message"]["content"] = "fine \ud83d"
        return 200, {"choices": [choice]}

    with FaultServer(rule=rule) as fault:
        done = answered(folder, fault, prompts, rows=40)
        assert fault.asked.total() == 41
    words = {0: "our policy", 1: "I cannot", 2: "Half of", 3: None}
    for row, line in zip(read_samples(done.path), read_log(done.path), strict=True):
        number = int(row.prompt.split()[-1]) % 4
        assert (row.finish, row.response) == (("stop", "fine \ufffd") if number == 3 else ("refusal", ""))
        assert (words[number] or "") in (line.get("refusal") or "")
        assert (row.prompt_tokens, row.response_tokens) == (-1, -1)
    assert done.manifest["summary"]["finish"]["refusal"] == done.manifest["summary"]["empty"]
    assert "usd" not in done.manifest["summary"]


def test_log_probabilities_and_greedy_decoding_are_asked_for(prompts, folder):
    with FaultServer() as fault:
        run = run_of(fault, folder)
        model = hosted(folder, run)
        done = build(folder, stage(3, top_logprobs=2, sampling=Sampling(0.0, 1.0, 5)), prompts, model, run=run)
        sent = [(body["logprobs"], body["top_logprobs"], body["temperature"]) for body in fault.bodies]
    assert sent == [(True, 2, 0)] * 3
    assert all(line["logprobs"][0]["token"] == "You" for line in read_log(done.path))


def test_two_sources_of_one_model_never_share_a_seed(prompts, folder):
    with FaultServer() as fault:
        run = run_of(fault, folder)
        model = hosted(folder, run)
        for name in ("oak", "elm"):
            build(folder, stage(80, source=name), prompts, model, run=run)
        assert len({body["seed"] for body in fault.bodies}) == len(fault.bodies) == 160


def test_prompts_may_hold_anything(root, tmp_path):
    texts = ["\x00\x07\x1b[31m", "é\u2028ü", "x" * 2**20, *(f"plain {name}" for name in "abcdefgh")]
    write_rows(tmp_path / "odd.jsonl", [{"id": f"q{n}", "prompt": text} for n, text in enumerate(texts)])
    odd = Prompts(table=Table(str(tmp_path / "odd.jsonl"), columns=Columns(id="id", response=None)), test=10)
    odd.resolve(Resolver(root / "outputs"))
    with FaultServer() as fault:
        done = answered(tmp_path, fault, build(tmp_path, odd))
    rows = read_samples(done.path)
    assert len(rows) == 10
    assert all(row.response == text_of(row.prompt) for row in rows)


def test_an_expired_key_is_tried_once_and_a_model_nobody_has_shows_the_list(prompts, folder, monkeypatch):
    with FaultServer(key="sk-new") as fault:
        monkeypatch.setenv("TEST_KEY", "sk-new")
        run = run_of(fault, folder, key="TEST_KEY", concurrency=1)
        model = hosted(folder, run)
        monkeypatch.setenv("TEST_KEY", "sk-old")
        with pytest.raises(ConfigError, match=r"TEST_KEY \(401\)"):
            build(folder, stage(5), prompts, model, run=run)
        assert fault.asked["without the key"] == 1
    with FaultServer(models=("huge-chat",)) as fault, pytest.raises(DataError, match="it has huge-chat"):
        hosted(folder / "other", run_of(fault, folder))


def test_a_stop_keeps_what_is_in_flight_and_the_next_build_asks_for_the_rest(prompts, folder):
    with FaultServer(latency=0.05) as fault:
        run = run_of(fault, folder, concurrency=32)
        model = hosted(folder, run)

        def stop(*_):
            run.stop.reason = "interrupted"

        run.stop = Stop()
        run._show = stop
        with pytest.raises(Stopped):
            build(folder, stage(), prompts, model, run=run)
        (partial,) = (folder / "artifacts/generate").glob(".*.partial")
        kept = (partial / ROWS).read_text().splitlines()
        assert 64 <= len(kept) == fault.asked.total() - fault.asked["/models"] < 1000
        done = build(folder, stage(), prompts, model, run=run_of(fault, folder))
        assert set((fault.asked - Counter(["/models"])).values()) == {1}
    assert done.manifest["summary"]["completion_tokens"] == 5000
    assert done.manifest["summary"]["requests"] == 1000 - len(kept)


def test_a_cut_row_and_a_cut_line_of_the_log_go(prompts, folder):
    with FaultServer() as fault:
        run = run_of(fault, folder)
        model = hosted(folder, run)
        done = build(folder, stage(20), prompts, model, run=run)
        half = folder / "half"
        half.mkdir()
        for name, lines in ((ROWS, 7), (LOG, 12)):
            whole = (done.path / name).read_text().splitlines(keepends=True)
            (half / name).write_text("".join(whole[:lines]) + whole[lines][:20])
        summary = done.stage.build((prompts, model), half, run)
        assert summary["requests"] == 13
    assert (half / ROWS).read_bytes() == (done.path / ROWS).read_bytes()
    assert [line["id"] for line in read_log(half)] == [row.id for row in read_samples(half)]


CHILD = """
import sys
from pathlib import Path
from tests.generate.test_api import again
again(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


def again(root, folder, url):
    """What a process that is killed runs."""
    run = run_of(FaultServer(url=url), folder, concurrency=16)
    build(folder, stage(), build(folder, prompt_stage(root)), hosted(folder, run), run=run)


def test_a_kill_loses_what_was_in_flight_and_doubles_no_row(root, prompts, folder):
    with FaultServer(latency=0.1) as fault:
        words = [sys.executable, "-c", CHILD, str(root), str(folder), fault.url]
        with subprocess.Popen(words, cwd=ROOT) as process:
            until = time.monotonic() + 100
            while time.monotonic() < until and process.poll() is None and len(fault.bodies) < 400:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        asked = fault.asked.copy()
        (partial,) = (folder / "artifacts/generate").glob(".*.partial")
        kept = {json.loads(line)["prompt"] for line in (partial / ROWS).read_text().splitlines()}
        assert 400 - 64 - 2 * 16 <= len(kept) < 1000
        run = run_of(fault, folder)
        done = build(folder, stage(), prompts, hosted(folder, run), run=run)
        assert all(fault.asked[prompt] == 1 for prompt in kept), "what had arrived was not asked for again"
    assert asked.keys() - kept <= fault.asked.keys()
    assert Counter(row.id for row in read_samples(done.path)).most_common(1)[0][1] == 1
    assert len(read_log(done.path)) == 1000


def test_a_budget_stops_before_it_is_crossed_and_goes_on_when_raised(prompts, folder):
    prices = {"price_in": 1000.0, "price_out": 1000.0}  # 0.016 USD an answer, 0.07 at most
    with FaultServer(latency=0.002) as fault:
        with pytest.raises(DataError, match=r"runtime\.budget_usd=0.8: 0\.7\d* USD are spent or reserved.*raise it"):
            answered(folder, fault, prompts, rows=84, prices=prices, budget_usd=0.8)
        (partial,) = (folder / "artifacts/generate").glob(".*.partial")
        kept = len((partial / ROWS).read_text().splitlines())
        spent = [json.loads(line) for line in (folder / SPENT).read_text().splitlines()]
        assert kept == fault.asked.total() - 1 == len([line for line in spent if "settle" in line])
        assert sum(line["usd"] for line in spent if "settle" in line) == pytest.approx(kept * 0.016)
        assert kept > 40, "it is nearly used up"
        with pytest.raises(DataError, match=r"runtime\.budget_usd=0.8"):
            answered(folder, fault, prompts, rows=84, prices=prices, budget_usd=0.8)
        assert fault.asked.total() - 1 == kept, "nothing more was asked"
        done = answered(folder, fault, prompts, rows=84, prices=prices, budget_usd=2.0)
        assert fault.asked.total() - 1 == 84
    assert done.manifest["summary"]["usd"] == pytest.approx(84 * 0.016), "the rows of all sessions"


def test_the_key_is_in_no_file(tmp_path):
    """A whole cell, tracked: once with a key that the server refuses, then with the right one."""
    write_files(tmp_path)
    with FaultServer(key="sk-right-Qm2xLz93vB") as fault:
        words = [
            *FILES, "mix=single", "generators.shard_rows=12", "track=wandb", "runtime.budget_usd=5",
            "generators.models=[{name: oak, backend: api, hosted: {server: here, id: tiny-chat}, "
            "sampling: {max_new_tokens: 20}, facts: {family: oak, price_in: 1, price_out: 2}}]",
            f'runtime.servers=[{{name: here, url: "{fault.url}", key: TEST_KEY, timeout_seconds: 5}}]',
        ]  # fmt: skip
        own = {"WANDB_MODE": "offline", "OPENAI_LOG": "info"}
        wrong = synthdiv(*words, cwd=tmp_path, code=1, TEST_KEY="sk-wrong-Qm2xLz93vB", **own)
        assert "TEST_KEY (401)" in wrong.stdout + wrong.stderr
        assert fault.asked["without the key"] == 1
        right = synthdiv(*words, cwd=tmp_path, TEST_KEY="sk-right-Qm2xLz93vB", **own)
    for said in (wrong.stdout, wrong.stderr, right.stdout, right.stderr):
        assert "Qm2xLz93vB" not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert any(path.name == SPENT for path in files)
    assert [path for path in files if b"Qm2xLz93vB" in path.read_bytes()] == []
    assert not list((tmp_path / "outputs" / "artifacts").glob("*/.*"))
