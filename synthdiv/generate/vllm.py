"""`vllm serve`, a separate process that ends with the worker; prompts are rendered here, adapters served on their base.

Needs: `checkpoint`, `pretrain` or `gguf`; `runtime.vllm`.

Tested on: vLLM 0.32.0 on a CPU (`tests/vllm.sh` sets it up): greedy answers are those of `hf`, drawn ones have their
law, log-probabilities within 1e-3, adapters, merged exports; every day a stand-in for the parts of the protocol that
are used. Not tested: an accelerator.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from synthdiv.core.ranks import reserve_port
from synthdiv.core.runtime import Runtime, Server
from synthdiv.core.types import Artifact, ConfigError, DataError
from synthdiv.generate.answer import Answer, Answers, Request, Shard
from synthdiv.generate.api import collect_answers, kept_rows, sampling_fields
from synthdiv.generate.client import Client
from synthdiv.generate.hf import failed_answers, tokenize_shard
from synthdiv.generate.replies import ApiRequest, Reply
from synthdiv.models.chat import Chat
from synthdiv.models.load import base_of, end_ids, load_context, stacked, tokenizer_of, weights_folder

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # values that vLLM accepts for --max-lora-rank
CONCURRENCY = 256  # requests in flight, which vLLM batches
DIE_WITH_PARENT = (
    "import ctypes,os,sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"  # PR_SET_PDEATHSIG
)


class VllmServer:
    """A running `vllm serve`, started on a model artifact; `boundary` is called while waiting for it, and may raise.
    `model` is the name under which the artifact is served and `context` the context length in tokens. `facts` goes into
    the manifest."""

    def __init__(self, artifact: Artifact, precision: str, runtime: Runtime, boundary: Callable[[], None]):
        adapter = artifact.path / "adapter"
        if stacked(artifact):
            raise ConfigError(f"{adapter}: is on another adapter, which vLLM cannot serve; choose backend hf")
        folder = weights_folder(base_of(artifact))
        self.tokenizer, self.context, self.ends = tokenizer_of(artifact), load_context(folder), end_ids(folder)
        self.model = "adapter" if adapter.is_dir() else "base"
        arguments = command(folder, adapter if adapter.is_dir() else None, precision, runtime)
        self._reserved = reserve_port()
        port = self._reserved.getsockname()[1]
        self._root = f"http://127.0.0.1:{port}"
        self.server = Server("vllm", f"{self._root}/v1", concurrency=CONCURRENCY, attempts=3, timeout_seconds=3600.0)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the server
        self._process = subprocess.Popen(
            [sys.executable, "-c", DIE_WITH_PARENT, *arguments, "--port", str(port)],
            stdout=self._log, stderr=self._log, env=clean_environment(), start_new_session=True,
        )  # fmt: skip
        try:
            self._wait(boundary)
            self.facts = {"version": json.loads(self._get("/version")).get("version")}
        except BaseException:
            self.close()
            raise
        self.facts |= {"options": runtime.vllm_options, "tensor_parallel": runtime.tensor_parallel}

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def _get(self, path: str) -> bytes:
        """Return the body of a GET request, without a proxy."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self._root + path, timeout=10) as answer:
            return bytes(answer.read())

    def _wait(self, boundary: Callable[[], None]) -> None:
        """Wait until the server answers; raise DataError if it exits."""
        while self.alive:
            try:
                self._get("/health")
                return
            except OSError:  # the base class of all errors of urllib
                boundary()
                time.sleep(0.2)
        raise DataError(f"vLLM did not start: {self.exit_summary()}")

    def exit_summary(self) -> str:
        """Return the exit code and the last lines of the log."""
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"exit code {self._process.poll()}: " + " | ".join(lines[-5:])

    def close(self) -> None:
        """Stop the server and its child processes, which would otherwise keep accelerator memory."""
        if self.alive:
            os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        self._reserved.close()


def clean_environment() -> dict[str, str]:
    """Return the environment without the variables of torchrun, because vLLM starts its own ranks."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    prefixes = ("TORCHELASTIC_", "GROUP_", "ROLE_")
    return {name: value for name, value in os.environ.items() if name not in names and not name.startswith(prefixes)}


def command(folder: Path, adapter: Path | None, precision: str, runtime: Runtime) -> list[str]:
    """Return the command that starts vLLM, without its port; `--generation-config vllm` ignores sampling defaults of
    the checkpoint."""
    program, *arguments = shlex.split(runtime.vllm)
    executable = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if not executable:
        raise ConfigError(
            f"runtime.vllm={runtime.vllm}: no such command. Install vLLM (pip install 'synthdiv[vllm]'), give its path "
            "in another environment, or choose backend hf"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and len(visible.split(",")) < runtime.tensor_parallel:
        raise ConfigError(
            f"runtime.tensor_parallel={runtime.tensor_parallel}: this worker may use the devices {visible or 'none'}; "
            f"give it more devices with hydra.launcher.devices={runtime.tensor_parallel}, or gpus-per-node on a cluster"
        )
    command_line = [executable, *arguments, "serve", str(folder), "--served-model-name", "base", "--host", "127.0.0.1"]
    command_line += ["--dtype", {"bf16": "bfloat16", "fp32": "float32"}[precision]]
    command_line += ["--tensor-parallel-size", str(runtime.tensor_parallel), "--generation-config", "vllm"]
    if adapter:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        if config.get("use_dora") or config.get("modules_to_save"):
            raise ConfigError("train.lora.dora, modules_to_save: vLLM serves neither; choose backend hf")
        rank = config["r"]
        lora_rank = next((supported for supported in LORA_RANKS if supported >= rank), None)
        if lora_rank is None:
            raise ConfigError(f"train.lora.r={rank}: vLLM serves adapters up to {LORA_RANKS[-1]}; choose backend hf")
        command_line += ["--enable-lora", "--max-lora-rank", str(lora_rank), "--lora-modules", f"adapter={adapter}"]
    return [*command_line, *runtime.vllm_options]


def answers(shard: Shard) -> Answers:
    """Yield lists of answers as they arrive. The seed of each request is that of its row."""
    prompts, model = shard.inputs["prompts"], shard.inputs["model"]
    row_ids = kept_rows(shard)
    served: VllmServer = shard.run.model(model, shard.stage.precision.value, "vllm")
    if not served.alive:  # it exited since the last shard
        shard.run.close()
        served = shard.run.model(model, shard.stage.precision.value, "vllm")
    chat = Chat.for_prompts(served.tokenizer, prompts, served.ends)
    tokenized, failed = tokenize_shard(shard, chat, served.context)
    if failed:
        yield [pair for pair in failed_answers(shard, failed) if (pair[0].id, pair[0].sample) not in row_ids]
    shard.facts |= {"system_folded": len(tokenized) if chat.folded else 0, "vllm": served.facts}
    missing = [(request, ids) for request, ids in tokenized if (request.id, request.sample) not in row_ids]
    requests = (completion_request(request, ids, served.model, chat.stop_ids, shard.stage) for request, ids in missing)
    client = Client(served.server, served.model, "completions")
    try:
        yield from collect_answers(shard, client, requests, partial(answer, chat=chat))
    except DataError as error:
        if served.alive:
            raise
        raise DataError(f"vLLM died: {served.exit_summary()}. Answers that arrived are kept ({error})") from error


def completion_request(request: Request, ids: list[int], model: str, ends: list[int], stage: Any) -> ApiRequest:
    sampling = stage.sampling
    payload = {
        "model": model,
        "prompt": ids,
        **sampling_fields(sampling),
        "seed": int(request.stream, 16) % 2**63,
        "stop_token_ids": ends,
        "return_token_ids": True,
    }
    if stage.top_logprobs:
        payload["logprobs"] = stage.top_logprobs
    return ApiRequest(request, request.id, payload, 3 * len(ids), sampling.max_new_tokens)


def answer(reply: Reply, chat: Chat) -> Answer:
    """Return the answer in a reply; the end token is not counted."""
    data = reply.data or {}
    choice, usage = data["choices"][0], data["usage"]
    ids = choice.get("token_ids") or []
    ended = bool(ids) and ids[-1] in chat.stop_ids
    log = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
    tokens = usage["completion_tokens"] - ended
    text = chat.text(choice["text"], ids)
    return Answer(text, choice["finish_reason"], usage["prompt_tokens"], tokens, log)
