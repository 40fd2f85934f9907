"""Answers from vLLM: `vllm serve` in a process of its own, asked by token ids, so that prompts are rendered here as in
training. An adapter is served on its base, never merged."""

from __future__ import annotations

import contextlib
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
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from synthdiv.core.runtime import Runtime, Server
from synthdiv.core.types import Artifact, ConfigError, DataError
from synthdiv.generate.answer import Answer, Answers, Request, Shard
from synthdiv.generate.api import arrived, kept_rows
from synthdiv.generate.client import Ask, Client, Reply
from synthdiv.generate.hf import ask
from synthdiv.models.chat import Chat
from synthdiv.models.load import load_context, load_tokenizer, weights_folder

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the largest ranks of adapters that vLLM can be told
AT_ONCE = 256  # requests in flight: vLLM makes batches of them
MORTAL = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"  # dies with us


class Served:
    """A running vLLM. `model` is the name under which it serves the artifact, `context` the tokens that fit, `told` is
    for the manifest."""

    def __init__(self, artifact: Artifact, precision: str, runtime: Runtime, boundary: Callable[[], None]):
        adapter = artifact.path / "adapter"
        folder = weights_folder(artifact.inputs["student"] if adapter.is_dir() else artifact)
        self.tokenizer, self.context = load_tokenizer(folder), load_context(folder)
        self.model = "adapter" if adapter.is_dir() else "base"
        self._root = f"http://127.0.0.1:{free_port()}"
        self.server = Server("vllm", f"{self._root}/v1", concurrency=AT_ONCE, attempts=3, timeout_seconds=3600.0)
        port = int(self._root.rpartition(":")[2])
        words = command(folder, adapter if adapter.is_dir() else None, precision, port, runtime)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the server
        self._process = subprocess.Popen(
            [sys.executable, "-c", MORTAL, *words], stdout=self._log, stderr=self._log, env=alone(),
            start_new_session=True,
        )  # fmt: skip
        try:
            self._wait(boundary)
            self.told = {"version": json.loads(self._get("/version")).get("version")}
        except BaseException:
            self.close()
            raise
        self.told |= {"options": runtime.vllm_options, "tensor_parallel": runtime.tensor_parallel}

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def _get(self, path: str) -> bytes:
        """What it says itself; no proxy knows this machine's loopback."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._root + path, timeout=10) as answer:
            return bytes(answer.read())

    def _wait(self, boundary: Callable[[], None]) -> None:
        """Until it answers; it may load for many minutes, but if it ends there is no use in waiting."""
        while self.alive:
            try:
                self._get("/health")
                return
            except OSError:  # of which all errors of urllib are
                boundary()
                time.sleep(0.2)
        raise DataError(f"vLLM did not start: {self.last_words()}")

    def last_words(self) -> str:
        """How it ended, and the last lines of its log."""
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"it ended with code {self._process.poll()}: " + " | ".join(lines[-5:])

    def close(self) -> None:
        """End it, and whatever it started: a process that stays would keep the memory of the accelerator."""
        if self.alive:
            os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


def serve(artifact: Artifact, precision: str, runtime: Runtime, boundary: Callable[[], None]) -> Served:
    """Start vLLM on a model artifact and wait until it answers; `boundary` is called meanwhile, and may raise."""
    return Served(artifact, precision, runtime, boundary)


def alone() -> dict[str, str]:
    """The environment without what torchrun says to its ranks: vLLM has ranks of its own."""
    told = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    starts = ("TORCHELASTIC_", "GROUP_", "ROLE_")
    return {name: value for name, value in os.environ.items() if name not in told and not name.startswith(starts)}


def command(folder: Path, adapter: Path | None, precision: str, port: int, runtime: Runtime) -> list[str]:
    """How vLLM is started. Sampling that a checkpoint ships is no part of the recipe (`--generation-config vllm`)."""
    program, *more = shlex.split(runtime.vllm)
    found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if not found:
        raise ConfigError(
            f"runtime.vllm={runtime.vllm}: no such command. Install vLLM (pip install 'synthdiv[vllm]'), give its path "
            "in an environment of its own, or choose backend hf"
        )
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen is not None and len(seen.split(",")) < runtime.tensor_parallel:
        raise ConfigError(
            f"runtime.tensor_parallel={runtime.tensor_parallel}: this worker may use the devices {seen or 'none'}; "
            f"give it more with hydra.launcher.devices={runtime.tensor_parallel}, or gpus-per-node on a cluster"
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
    return [*words, *runtime.vllm_options]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(shard: Shard) -> Answers:
    """Lists of what arrived, in any order. Each request has its row's own seed."""
    prompts, model = shard.inputs["prompts"], shard.inputs["model"]
    kept = kept_rows(shard)
    served: Served = shard.run.model(model, shard.stage.precision.value, "vllm")
    if not served.alive:  # it died since the last shard
        shard.run.close()
        served = shard.run.model(model, shard.stage.precision.value, "vllm")
    chat = Chat.of(served.tokenizer, prompts)
    every, shard.facts["truncated"] = ask(chat, served.context, shard.requests, shard.stage.sampling)
    shard.facts |= {"system_folded": len(every) if chat.folded else 0, "vllm": served.told}
    wanted = [(request, ids) for request, ids in every if (request.id, request.sample) not in kept]
    asks = (asked(request, ids, served.model, chat.ends, shard.stage) for request, ids in wanted)
    client = Client(served.server, served.model, "completions")
    try:
        yield from arrived(shard, client, asks, partial(answer, ends=chat.ends))
    except DataError as error:
        if served.alive:
            raise
        raise DataError(f"vLLM died: {served.last_words()}. What arrived is kept ({error})") from error


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
    log = {"at": reply.at, "seconds": reply.seconds}
    if choice.get("logprobs"):
        log["logprobs"] = choice["logprobs"]
    tokens = usage["completion_tokens"] - ended
    return Answer(choice["text"], choice["finish_reason"], usage["prompt_tokens"], tokens, log)
