"""Answers from vLLM: `vllm serve` in a process of its own, asked by token ids, so that prompts are rendered here as in
training. An adapter is served on its base, never merged."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

from synthdiv.generate.answer import Answer, Answers, Request, Shard
from synthdiv.generate.api import arrived, kept_rows
from synthdiv.generate.client import Ask, Client, Reply
from synthdiv.generate.hf import ask
from synthdiv.models.chat import Chat
from synthdiv.models.load import load_tokenizer, weights_folder
from synthdiv.runtime import Runtime, Server
from synthdiv.types import Artifact, ConfigError, DataError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the largest ranks of adapters that vLLM can be told
AT_ONCE = 256  # requests in flight: vLLM makes batches of them
MORTAL = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"  # dies with us


class Served:
    """A running vLLM. `model` is the name under which it serves the artifact, `context` the tokens that fit."""

    def __init__(self, artifact: Artifact, precision: str, runtime: Runtime):
        adapter = artifact.path / "adapter"
        folder = weights_folder(artifact.inputs[0] if adapter.is_dir() else artifact)
        self.tokenizer, self.context = load_tokenizer(folder), context_of(folder)
        self.model = "adapter" if adapter.is_dir() else "base"
        port = free_port()
        url = f"http://127.0.0.1:{port}/v1"
        self.server = Server("vllm", url, concurrency=AT_ONCE, attempts=3, timeout_seconds=3600.0)
        words = command(folder, adapter if adapter.is_dir() else None, precision, port, runtime)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the server
        self._process = subprocess.Popen(
            [sys.executable, "-c", MORTAL, *words], stdout=self._log, stderr=self._log, start_new_session=True
        )
        try:
            self._wait(f"http://127.0.0.1:{port}/health")
        except BaseException:
            self.close()
            raise

    def _wait(self, health: str) -> None:
        """Until it answers; it may load for many minutes, but if it ends there is no use in waiting."""
        while self._process.poll() is None:
            try:
                with urllib.request.urlopen(health, timeout=10):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        raise DataError(f"vLLM ended with code {self._process.returncode} while it loaded: " + " | ".join(lines[-5:]))

    def close(self) -> None:
        """End it and the processes that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)
                try:
                    self._process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    continue
        self._log.close()


def serve(artifact: Artifact, precision: str, runtime: Runtime) -> Served:
    """Start vLLM on a model artifact and wait until it answers."""
    return Served(artifact, precision, runtime)


def command(folder: Path, adapter: Path | None, precision: str, port: int, runtime: Runtime) -> list[str]:
    """How vLLM is started. Sampling that a checkpoint ships is no part of the recipe (`--generation-config vllm`)."""
    program, *more = shlex.split(runtime.vllm)
    found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if not found:
        raise ConfigError(
            f"runtime.vllm={runtime.vllm}: no such command. Install vLLM (pip install 'synthdiv[vllm]'), give its path "
            "in an environment of its own, or choose backend hf"
        )
    words = [found, *more, "serve", str(folder), "--served-model-name", "base", "--host", "127.0.0.1"]
    words += ["--port", str(port), "--dtype", {"bf16": "bfloat16", "fp32": "float32"}[precision]]
    words += ["--tensor-parallel-size", str(runtime.tensor_parallel), "--generation-config", "vllm"]
    if adapter:
        rank = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"]
        most = next((known for known in RANKS if known >= rank), None)
        if most is None:
            raise ConfigError(f"train.lora.r={rank}: vLLM serves adapters up to {RANKS[-1]}; choose backend hf")
        words += ["--enable-lora", "--max-lora-rank", str(most), "--lora-modules", f"adapter={adapter}"]
    return words


def context_of(folder: Path) -> int:
    """Tokens that fit the model, prompt and answer together."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 2**30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(shard: Shard) -> Answers:
    """Lists of what arrived, in any order. Each request has its row's own seed."""
    prompts, model = shard.inputs[:2]
    kept = kept_rows(shard)
    served: Served = shard.run.model(model, shard.stage.precision.value, "vllm")
    chat = Chat.of(served.tokenizer, prompts)
    left = [request for request in shard.requests if (request.id, request.sample) not in kept]
    wanted, shard.facts["truncated"] = ask(chat, served.context, left, shard.stage.sampling)
    shard.facts["system_folded"] = len(wanted) if chat.folded else 0
    ends = sorted({chat.end, served.tokenizer.eos_token_id} - {None})
    client = Client(served.server, served.model, "completions")
    asks = (asked(request, ids, served.model, ends, shard.stage) for request, ids in wanted)
    yield from arrived(shard, client, asks, partial(answer, ends=ends))


def asked(request: Request, ids: list[int], model: str, ends: list[int], stage: Any) -> Ask:
    sampling = stage.sampling
    payload = {
        "model": model,
        "prompt": ids,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": int(request.stream, 16) % 2**63,
        "stop_token_ids": ends,
        "return_token_ids": True,
    }
    if stage.top_logprobs:
        payload["logprobs"] = stage.top_logprobs
    return Ask(request, request.id, payload, 3 * len(ids), sampling.max_new_tokens)


def answer(reply: Reply, ends: list[int]) -> Answer:
    """The text; the token that ends it is not counted."""
    choice, usage = reply.data["choices"][0], reply.data["usage"]
    ended = (choice.get("token_ids") or [None])[-1] in ends
    log = {"at": reply.at, "seconds": reply.seconds, "attempts": reply.attempts}
    if choice.get("logprobs"):
        log["logprobs"] = choice["logprobs"]
    tokens = usage["completion_tokens"] - ended
    return Answer(choice["text"], choice["finish_reason"], usage["prompt_tokens"], tokens, log)
