"""Every row arrives once, whatever the server, a signal or a budget does in between; and a key is in no file."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial

import pytest

from synthdiv.core.local_run import Stop
from synthdiv.core.resolver import Resolver
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError, DataError, Stopped
from synthdiv.engine.inline import Inline
from synthdiv.engine.local import Local
from synthdiv.generate import client
from synthdiv.generate.answer import LOG, ROWS
from synthdiv.generate.generate import read_log, read_samples
from synthdiv.generate.hosted import Hosted
from synthdiv.generate.spec import Sampling
from synthdiv.prompts.prompt_set import Prompts, read_prompts
from synthdiv.prompts.table import Columns, Table
from tests.conftest import ROOT, write_rows
from tests.engine.stages import Given, cell
from tests.generate.fault_server import FaultServer, text_of
from tests.generate.hosting import answered, built_prompts, hosted, prompt_stage, run_of, stage
from tests.models.small import build

FIELDS_SHOWN = ("generate.top_logprobs", "hosted.server", "hosted.id", "hosted.extra")


@pytest.fixture(scope="module")
def prompts(root):
    return built_prompts(root)


def test_every_row_arrives_once_in_order_though_a_fifth_of_requests_fails(prompts, folder, monkeypatch):
    monkeypatch.setattr(client, "FIRST_BACKOFF", 0.2)
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
    assert summary["requests"] == 1000 + sum(summary["retries"].values())
    unread = summary["requests"] - len(fault.bodies)  # on a busy machine a request may time out before it is read
    assert 0 <= unread <= summary["retries"]["timeout"]
    assert set(summary["retries"]) == {"429", "500", "timeout", "connection", "invalid", "finish"}
    assert summary["models"] == {"tiny-chat": 1000}
    assert summary["fingerprints"] == {"fp_1": 1000}
    lost, retries = summary["unsure"]["attempts"], summary["retries"]
    assert lost == retries["timeout"] + retries["connection"] + fault.garbled
    paid = summary["requests"] - retries["429"] - retries["500"] - lost
    assert (summary["prompt_tokens"], summary["completion_tokens"]) == (11 * paid, 5 * paid)
    assert summary["usd"] == pytest.approx(paid * (11e-6 + 50e-6))
    assert summary["finish"] == Counter(row.finish for row in rows)
    one = next(line for line in log if line["attempts"] == 1)
    assert (one["attempts"], one["usage"]) == (1, {"prompt": 11, "completion": 5})
    assert one["usd"] == pytest.approx(61e-6)
    assert abs(one["at"] - time.time()) < 600
    assert one["seconds"] >= 0.01
    assert one["fingerprint"] == "fp_1"
    assert one["model"] == "tiny-chat"
    assert max(line["attempts"] for line in log) > 1
    assert "without_usage" not in summary
    assert (one["url"], one["provider"]) == (fault.url, "alder")
    assert summary["providers"] == {"alder": 1000}
    body = fault.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.9, 20)
    assert 0 <= body["seed"] < 2**31
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0, 1)
    assert body.keys().isdisjoint(["logprobs", "stop"])


def test_a_refusal_is_an_outcome_and_no_text(prompts, folder):
    def rule(body):
        text = body["messages"][-1]["content"]
        number = int(text.split()[-1]) % 6
        choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": None}}
        if number == 0:
            return 400, {"error": {"message": "our policy", "code": "content_policy_violation"}}
        if number == 1:
            choice["message"]["refusal"] = "I cannot"
        if number == 2:
            choice |= {"finish_reason": "content_filter", "message": {"content": "Half of"}}
        if number == 3:
            choice["message"] |= {"content": "fine \ud83d", "reasoning_content": "hm"}
        if number == 4:
            choice = {"finish_reason": "content_filter: PROHIBITED_CONTENT"}
        if number == 5:
            return 400, {"error": {"message": "Content Exists Risk"}}
        return 200, {"choices": [choice]}

    with FaultServer(rule=rule) as fault:
        done = answered(folder, fault, prompts, rows=40)
        assert fault.asked.total() == 41
    words = {0: "our policy", 1: "I cannot", 2: "Half of", 3: None, 4: "PROHIBITED_CONTENT", 5: "Exists Risk"}
    for row, line in zip(read_samples(done.path), read_log(done.path), strict=True):
        number = int(row.prompt.split()[-1]) % 6
        assert (row.finish, row.response) == (("stop", "fine \ufffd") if number == 3 else ("refusal", ""))
        assert (words[number] or "") in (line.get("refusal") or "")
        assert line.get("thinking") == ("hm" if number == 3 else None), "the server parted it from the answer"
        assert (row.prompt_tokens, row.response_tokens) == (-1, -1)
    assert done.manifest["summary"]["finish"]["refusal"] == done.manifest["summary"]["empty"]
    assert done.manifest["summary"]["without_usage"] == 40
    assert done.manifest["summary"].keys().isdisjoint(["usd", "prompt_tokens", "completion_tokens"])


def test_log_probabilities_and_greedy_decoding_are_asked_for(prompts, folder):
    with FaultServer() as fault:
        run = run_of(fault, folder)
        model = hosted(folder, run)
        law = Sampling(0.0, 1.0, 5, top_k=9, min_p=0.1, repetition_penalty=1.1, stop=["###"])
        done = build(folder, stage(3, top_logprobs=2, sampling=law), prompts, model, run=run)
    wanted = {"logprobs": True, "top_logprobs": 2, "temperature": 0.0, "top_k": 9, "min_p": 0.1}
    wanted |= {"repetition_penalty": 1.1, "stop": ["###"]}
    assert [body | wanted for body in fault.bodies] == fault.bodies
    assert len(fault.bodies) == 3
    assert all(line["logprobs"][0]["token"] == "You" for line in read_log(done.path))


def test_extra_is_merged_into_the_body_and_part_of_the_key(prompts, folder):
    with FaultServer() as fault:
        run = run_of(fault, folder)
        extra = '{"reasoning_effort": "low", "top_p": null, "max_tokens": null, "max_completion_tokens": 700}'
        plain, model = hosted(folder, run), hosted(folder, run, extra=extra)
        build(folder, stage(3), prompts, model, run=run)
    body = fault.bodies[0]
    assert (body["reasoning_effort"], body["max_completion_tokens"]) == ("low", 700)
    assert body.keys().isdisjoint(["top_p", "max_tokens"])
    assert model.key != plain.key == hosted(folder, run, reports=["other"]).key


@pytest.mark.parametrize("extra", ["low", "[1]", '{"model": "x"}', "[" * 9999])
def test_extra_that_is_no_object_or_takes_the_place_of_a_field_is_refused(extra):
    (problem,) = Hosted("here", "tiny-chat", extra).check("m")
    assert problem.startswith("m.extra")


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


def test_a_rejected_key_is_tried_once_and_an_unknown_model_lists_the_models(prompts, folder, monkeypatch):
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
        (partial,) = (folder / "artifacts/generate").glob(".*/*.partial")
        kept = (partial / ROWS).read_text().splitlines()
        assert 1 < len(kept) == fault.asked.total() - fault.asked["/models"] < 1000
        done = build(folder, stage(), prompts, model, run=run_of(fault, folder))
        assert set((fault.asked - Counter(["/models"])).values()) == {1}
    assert done.manifest["summary"]["completion_tokens"] == 5000
    assert done.manifest["summary"]["requests"] == 1000


def test_truncated_rows_and_log_lines_are_dropped(prompts, folder):
    with FaultServer() as fault:
        run = run_of(fault, folder)
        model = hosted(folder, run)
        done = build(folder, stage(20), prompts, model, run=run)
        half = folder / "half"
        half.mkdir()
        for name, lines in ((ROWS, 7), (LOG, 12)):
            whole = (done.path / name).read_text().splitlines(keepends=True)
            (half / name).write_text("".join(whole[:lines]) + whole[lines][:20])
        summary = done.stage.build({"prompts": prompts, "model": model}, half, run)
        assert summary["requests"] == 7 + 2 * 5 + 8, "five had been asked, and were lost before they were written"
    assert (half / ROWS).read_bytes() == (done.path / ROWS).read_bytes()
    assert [line["id"] for line in read_log(half)] == [row.id for row in read_samples(half)]


@pytest.mark.parametrize("engine", [Inline, partial(Local, jobs=1, devices=1)], ids=["inline", "local"])
def test_shards_of_a_hosted_source_share_its_places_in_flight(prompts, folder, engine):
    """Eight shards of eleven take as long as one of 88 would, in this process and in one worker."""
    with FaultServer(latency=0.3) as fault:
        run = run_of(fault, folder, concurrency=22)
        inputs = {"prompts": Node(prompts.stage), "model": Node(hosted(folder, run).stage)}
        nodes = [Node(dataclasses.replace(stage(11), shard=shard), inputs) for shard in range(8)]
        assert nodes[0].stage.together(inputs, run.runtime) == 3
        launch = engine(Given(nodes), cell(folder, servers=run.runtime.servers))
        assert launch.run() == 0
        assert {launch.states[node.key] for node in nodes} == {"built"}
        seconds = fault.starts[-1] - fault.starts[0]
    count = len(fault.bodies)
    assert fault.peak == 22, "and no more"
    assert fault.peak * 0.3 / 2 < count * 0.3 / seconds, "on average half of the places are in use"


def test_two_processes_share_the_places_in_flight(root, prompts, folder):
    with FaultServer(latency=0.1) as fault:
        hosted(folder, run_of(fault, folder))
        words = [sys.executable, "-c", CHILD, str(root), str(folder), fault.url]
        others = [subprocess.Popen([*words, source], cwd=ROOT) for source in ("oak", "elm")]
        assert [process.wait(120) for process in others] == [0, 0]
    assert len(fault.bodies) == 2000
    assert fault.peak <= 16


CHILD = """
import sys
from pathlib import Path
from tests.generate.test_api import again
again(*map(Path, sys.argv[1:3]), *sys.argv[3:])
"""


def again(root, folder, url, source="oak"):
    """What another process runs."""
    run = run_of(FaultServer(url=url), folder, concurrency=16)
    build(folder, stage(source=source), build(folder, prompt_stage(root)), hosted(folder, run), run=run)


def test_a_kill_loses_what_was_in_flight_and_doubles_no_row(root, prompts, folder):
    with FaultServer(latency=0.1) as fault:
        words = [sys.executable, "-c", CHILD, str(root), str(folder), fault.url]
        with subprocess.Popen(words, cwd=ROOT) as process:
            until = time.monotonic() + 100
            while time.monotonic() < until and process.poll() is None and len(fault.bodies) < 400:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        asked = fault.asked.copy()
        (partial,) = (folder / "artifacts/generate").glob(".*/*.partial")
        kept = {json.loads(line)["prompt"] for line in (partial / ROWS).read_text().splitlines()}
        assert asked.total() - asked["/models"] - 16 <= len(kept) < 1000, "no more than were in flight"
        run = run_of(fault, folder)
        done = build(folder, stage(), prompts, hosted(folder, run), run=run)
        assert all(fault.asked[prompt] == 1 for prompt in kept), "what had arrived was not asked for again"
    assert asked.keys() - kept <= fault.asked.keys()
    assert Counter(row.id for row in read_samples(done.path)).most_common(1)[0][1] == 1
    assert len(read_log(done.path)) == 1000
