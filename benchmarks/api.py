"""How well requests to a server overlap: 1,000 prompts, a server that answers in 50 ms, 64 at a time.

python benchmarks/api.py [requests]

ideal  requests × latency / concurrency: nothing but the server's own time
ours   the backend `api` from the first request to the last answer, the best of five; and this process's own time
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from synthdiv.core.local_run import LocalRun
from synthdiv.core.runtime import Runtime, Server
from synthdiv.core.types import Artifact
from synthdiv.generate.answer import Request, Shard
from synthdiv.generate.api import answers
from synthdiv.generate.generate import Generate
from synthdiv.generate.hosted import Hosted
from synthdiv.prompts.prompt_set import Prompts

ROOT = Path(__file__).resolve().parent.parent
LATENCY, CONCURRENCY, MOST = 0.05, 64, 1.5


def once(url: str, count: int) -> tuple[float, float]:
    """Seconds for `count` answers, and seconds of processor time of this process."""
    requests = [Request(f"q{number}", f"Say {number}", 0, f"{number:032x}") for number in range(count)]
    stages = {"prompts": Prompts(), "model": Hosted("here", "tiny-chat")}
    inputs = {name: Artifact(stage, "", Path()) for name, stage in stages.items()}
    with tempfile.TemporaryDirectory() as folder:
        server = Server("here", url, concurrency=CONCURRENCY)
        run = LocalRun(Runtime(outputs=folder, servers=[server]), lambda *_: None)
        shard = Shard(Generate(), requests, inputs, Path(folder), run, {})
        begun, used = time.perf_counter(), time.process_time()
        got = sum(map(len, answers(shard)))
        seconds = (time.perf_counter() - begun, time.process_time() - used)
    assert got == count, f"{got} answers to {count} requests"
    return seconds


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    words = [sys.executable, "-m", "tests.generate.fault_server", str(LATENCY)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin
        assert process.stdout
        url = process.stdout.readline().strip()
        once(url, CONCURRENCY)  # the imports
        runs = [once(url, count) for _ in range(5)]
        process.stdin.close()
    ours, processor = min(seconds for seconds, _ in runs), min(used for _, used in runs)
    ideal = count * LATENCY / CONCURRENCY
    print(f"ideal  {ideal:8.2f} s  {count:,} requests of {LATENCY * 1000:g} ms, {CONCURRENCY} at a time")
    print(
        f"ours   {ours:8.2f} s  {count / ours:,.0f} a second, {processor / count * 1000:.2f} ms of processor time each"
    )
    print(f"ratio  {ours / ideal:8.2f}    (at most {MOST:g})")
    return 1 if ours > MOST * ideal else 0


if __name__ == "__main__":
    sys.exit(main())
