"""Prompts without an answer: a source that refuses, a file that lacks answers, and a mix that leaves prompts out."""

from __future__ import annotations

import dataclasses
from typing import Any

from synthdiv.core.stage import Node
from synthdiv.generate.generate import Generate
from synthdiv.generate.hosted import Hosted
from synthdiv.generate.spec import Backend, Recorded
from synthdiv.mix.mix import Mix
from synthdiv.study.records import node_record
from synthdiv.views.report.page import write_report
from tests.conftest import write_rows
from tests.generate.fault_server import FaultServer, prompt_of
from tests.generate.hosting import built_prompts, run_of, stage
from tests.views.report.conftest import Study
from tests.views.report.reading import Page, rows

FILTERED = {"error": {"message": "blocked | by a filter", "code": "content_filter"}}


def test_prompts_without_an_answer_are_in_the_report_with_their_reason(study: Study) -> None:
    prompts = Node(built_prompts(study.root).stage)
    study.cell("human", 1.0)
    assert "without an answer" not in write_report(study.root, "eggs", []).read_text()
    write_rows(study.root / "gaps.jsonl", [{"id": f"q{number}", "response": "yes"} for number in range(0, 2016, 2)])
    gaps = Recorded(str(study.root / "gaps.jsonl"), id="id")
    elm = Generate(source="elm", backend=Backend.recorded, recorded=gaps, rows=96, shard_rows=8)

    def filtered(body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        return (400, FILTERED) if prompt_of(body).endswith("9") else None

    with FaultServer(rule=filtered) as fault:
        run = run_of(fault, study.root)
        inputs = {"prompts": prompts, "model": Node(Hosted("here", "tiny-chat"))}
        nodes = [prompts, inputs["model"], Node(dataclasses.replace(stage(8), rows=96), inputs)]
        nodes += [Node(dataclasses.replace(elm, shard=shard), {"prompts": prompts}) for shard in (0, 1)]
        files = [study.store.obtain(node, run)[0].path / "rows.jsonl" for node in nodes[1:]][1:]
    nodes.append(Node(Mix(real_share=1.0, rows=96, leave_out=["q1", "q3"]), {"prompts": prompts}))
    study.ledger.add([], [node_record(node) for node in nodes])

    shown = Page(write_report(study.root, "eggs", []).read_text())
    refused, failed = (sum(file.read_text().count(word) for file in files) for word in ('"refusal"', '"failed"'))
    assert 0 < refused < 8
    assert 0 < failed < 16
    assert rows(shown, "unfinished", "source", "refused") == [
        {"source": "elm", "answers": "16", "refused": "0", "failed": str(failed)}
        | {"most frequent reason": "the file has no answer"},
        {"source": "oak", "answers": "8", "refused": str(refused), "failed": "0"}
        | {"most frequent reason": "blocked | by a filter"},
    ]
    assert "Left out of mixes (mix.leave_out): 2 (q1, q3)." in shown.texts["unfinished"]
