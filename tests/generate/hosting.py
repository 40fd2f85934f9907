"""What the tests of hosted models share: prompts, a server, shards that are answered by it."""

from __future__ import annotations

import hashlib

from synthdiv.core.resolver import Resolver
from synthdiv.core.runtime import Server
from synthdiv.generate.generate import Generate, Split
from synthdiv.generate.hosted import Hosted
from synthdiv.generate.replies import ApiRequest
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.prompts.prompt_set import Prompts
from synthdiv.prompts.table import Columns, Table
from tests.conftest import write_rows
from tests.models.small import build, cpu_run

SAMPLING = Sampling(0.7, 0.9, 20)


def built_prompts(root):
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


def run_of(fault, folder, **runtime):
    own = {name: runtime.pop(name) for name in Server.__dataclass_fields__ if name in runtime}
    server = Server(**{"name": "here", "url": fault.url, "concurrency": 64, "timeout_seconds": 5.0} | own)
    return cpu_run(servers=[server], outputs=str(folder), **runtime)


def hosted(folder, run, **prices):
    return build(folder, Hosted("here", "tiny-chat", **prices), run=run)


def stage(rows=0, **fields):
    """A shard of so many train prompts, or all test prompts."""
    side = {"rows": 12 * rows, "shard_rows": rows} if rows else {"split": Split.test, "rows": 1000}
    return Generate(**{"source": "oak", "backend": Backend.api, "sampling": SAMPLING} | side | fields)


def answered(folder, fault, prompts, *, rows=0, prices=None, **runtime):
    """The finished shard, built in a store below `folder`."""
    run = run_of(fault, folder, **runtime)
    return build(folder, stage(rows), prompts, hosted(folder, run, **prices or {}), run=run)


def asks(*prompts, **payload):
    return [
        ApiRequest(number, f"q{number}", {"model": "tiny-chat", "prompt": prompt} | payload, len(prompt), 10)
        for number, prompt in enumerate(prompts)
    ]


def server(fault, **fields):
    return Server(**{"name": "here", "url": fault.url, "timeout_seconds": 5.0} | fields)


def collected(client, wanted, stopping=lambda: False):
    """The answers by name; what a session leaves unanswered has no data."""
    return {ask.name: reply for chunk in client.replies(wanted, stopping) for ask, reply in chunk if reply.data}


def chats(*prompts, **payload):
    """Requests to the chat endpoint."""
    return [
        ApiRequest(n, f"q{n}", {"model": "tiny-chat", "messages": [{"role": "user", "content": text}]} | payload, 9, 10)
        for n, text in enumerate(prompts)
    ]
