"""A real server of others: `transformers serve` with a small chat checkpoint, asked as any API."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from synthdiv.core.runtime import Server
from synthdiv.generate.generate import Generate, read_log, read_samples
from synthdiv.generate.hosted import Hosted
from synthdiv.generate.spec import Backend, Sampling
from tests.conftest import free_port
from tests.models.small import build, cpu_run, tiny_model


def missing(reason):
    """Skip, or fail where the environment says that this server must be here."""
    if "serve" in re.split(r"[\s,]+", os.environ.get("SYNTHDIV_REQUIRE", "")):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def checkpoint(root):
    """The folder of a small chat model."""
    return build(root, tiny_model(0, tokens=20000)).path / "model"


@pytest.fixture(scope="module")
def served(checkpoint, tmp_path_factory):
    """The address of the server, once it answers."""
    program = Path(sys.executable).parent / "transformers"
    needed = ("fastapi", "uvicorn", "openai")
    lacking = [name for name in needed if subprocess.run([sys.executable, "-c", f"import {name}"]).returncode]
    if lacking or not program.exists():
        missing(f"needs transformers[serving]; there is no {', '.join(lacking) or program}")
    home = tmp_path_factory.mktemp("hub")
    (home / "hub").mkdir()  # without it the list of models fails
    port = free_port()
    words = [str(program), "serve", "--port", str(port), "--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            words, stdout=log, stderr=log, env=os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
        )
    try:
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        else:
            pytest.fail((home / "log").read_text()[-2000:])
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_a_real_server_answers(served, checkpoint, root, prompts, tmp_path):
    shutil.copytree(root / "artifacts" / "prompts", tmp_path / "artifacts" / "prompts")
    server = Server("local", served, concurrency=2, timeout_seconds=120.0, attempts=2)
    run = cpu_run(servers=[server], outputs=str(tmp_path))
    hosted = build(tmp_path, Hosted("local", str(checkpoint), reports=[f"{checkpoint}@main"]), run=run)
    assert not hosted.manifest["summary"]["listed"], "its list has what the cache has, and that is empty"
    stage = Generate("oak", Backend.api, sampling=Sampling(0.7, 0.9, 12), rows=48, shard_rows=4)
    done = build(tmp_path, stage, prompts, hosted, run=run)
    rows, log = read_samples(done.path), read_log(done.path)
    assert len(rows) == len(log) == 4
    assert all(row.response.strip() for row in rows)
    assert {row.finish for row in rows} <= {"stop", "length"}
    assert all(1 <= row.response_tokens <= 13 < row.prompt_tokens + 13 for row in rows)
    assert all(line["model"].startswith(str(checkpoint)) for line in log)
    summary = done.manifest["summary"]
    assert (summary["requests"], summary["retries"]) == (5, {"parameter": 1}), "what it refuses is learnt once"
    assert all(summary[f"{name}_refused"] for name in ("top_k", "min_p", "repetition_penalty"))
