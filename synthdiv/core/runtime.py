"""Where and how fast things run. Nothing here is identity: another device or batch gives the same keys."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.ranks import Ranks
from synthdiv.core.strategy import Strategy, deepspeed_problems, trainer_problems
from synthdiv.core.types import Artifact, ConfigError, Stopped

LOGGER = logging.getLogger("synthdiv")


@dataclass
class Server:
    """One that speaks OpenAI's protocol. `key` is the name of the environment variable that holds the key (empty: it
    needs none). Limits hold for each process that asks; `attempts` and `timeout_seconds` for each request. A 429 is no
    such attempt: it holds all requests, and is an error once nothing but 429 came for `attempts` minutes."""

    name: str = ""
    url: str = ""
    key: str = ""
    concurrency: int = 32
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    attempts: int = 6
    timeout_seconds: float = 300.0

    def check(self, name: str) -> list[str]:
        """What may be secret is not repeated: a key that stands where its name belongs, a password in an address."""
        problems = [] if self.name else [f"{name}.name: needs a name"]
        if not re.fullmatch(r"https?://[^@/?#\s]+(/[^?#\s]*)?", self.url):
            problems.append(f"{name}.url: needs an http address, without a user (@), a query (?) or a fragment (#)")
        long = max(map(len, self.key.split("_"))) > 20  # keys have words so long, names have not
        if self.key and (long or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key)):
            problems.append(f"{name}.key: give the name of an environment variable, never the key itself")
        for limit in ("concurrency", "requests_per_minute", "tokens_per_minute", "attempts", "timeout_seconds"):
            value = getattr(self, limit)
            if value is not None and value <= 0:
                problems.append(f"{name}.{limit}={value}: needs more than 0")
        return problems


@dataclass
class Runtime:
    """`micro_batch` is rows a device takes at once (0: the whole effective batch); seconds are wall time. `servers` are
    those that hosted models name. `budget_usd` and `budget_tokens` (both ways) are what all requests ever made from
    these outputs may cost; `compile` is torch.compile for generation; `vllm` is the command of vLLM, which may live in
    an environment of its own, `vllm_options` more words for its `serve`, `tensor_parallel` the devices it takes.
    `gradient_checkpointing` computes activations twice and keeps none: less memory, the same numbers."""

    outputs: str = "outputs"
    device: str = "auto"
    threads: int = 0
    micro_batch: int = 0
    checkpoint_seconds: float = 300.0
    heartbeat_seconds: float = 10.0
    servers: list[Server] = field(default_factory=list)
    budget_usd: float | None = None
    budget_tokens: int | None = None
    compile: bool = False
    vllm: str = "vllm"
    vllm_options: list[str] = field(default_factory=list)
    tensor_parallel: int = 1
    strategy: Strategy = Strategy.auto
    """How several ranks train one model; one rank trains without a strategy."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Options of Lightning's Trainer: callbacks, logger, profiler, plugins, log_every_n_steps, detect_anomaly."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """Options merged into DeepSpeed's configuration, in its own names; for the strategies deepspeed_stage_…."""
    gradient_checkpointing: bool = False

    def check(self) -> list[str]:
        problems = []
        if self.micro_batch < 0:
            problems.append(f"runtime.micro_batch={self.micro_batch}: needs 0 (the whole batch) or more rows")
        if self.threads < 0:
            problems.append(f"runtime.threads={self.threads}: needs 0 (as many as torch takes) or more")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            problems.append(f"runtime.device={self.device!r}: choose auto, cpu, cuda, cuda:N or mps")
        if self.heartbeat_seconds <= 0 or self.checkpoint_seconds <= 0:
            problems.append("runtime.heartbeat_seconds and runtime.checkpoint_seconds: need more than 0 seconds")
        for index, server in enumerate(self.servers):
            problems += server.check(f"runtime.servers.{index}")
        names = [server.name for server in self.servers]
        problems += [
            f"runtime.servers: the name {name!r} stands twice" for name in sorted({*names}) if names.count(name) > 1
        ]
        for name in ("budget_usd", "budget_tokens"):
            if (getattr(self, name) or 0) < 0:
                problems.append(f"runtime.{name}={getattr(self, name)}: needs 0 or more, or null for no limit")
        if self.tensor_parallel < 1:
            problems.append(f"runtime.tensor_parallel={self.tensor_parallel}: needs 1 device or more")
        problems += trainer_problems(self.trainer) + deepspeed_problems(self.deepspeed, self.strategy)
        if self.device == "mps" and self.strategy.sharded:
            problems.append(f"runtime.strategy={self.strategy.value}: needs runtime.device=cuda or cpu, not mps")
        return problems


@dataclass
class Stop:
    """Set by signals, in a handler that does nothing else, and looked at between steps and batches. `reason` is one of
    REASONS; a second Ctrl-C stops now, whatever was heard before."""

    reason: str = ""
    now: bool = False
    _interrupts: int = 0
    _before: dict[int, Any] = field(default_factory=dict)

    def listen(self) -> None:
        for number in REASONS:
            self._before[number] = signal.signal(number, self._heard)

    def leave(self) -> None:
        """Handle signals again as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, _frame: object) -> None:
        self.reason = self.reason or REASONS[number]
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                self.now = True
                raise KeyboardInterrupt
            os.write(2, b"\nstopping at the next safe point; Ctrl-C again stops now\n")


REASONS: dict[int, str] = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGUSR2: "near its time limit",
}


class LocalRun:
    """The `Run` of one process: its device, its one open model, its progress line, its place among the ranks."""

    def __init__(
        self,
        runtime: Runtime,
        open_model: Callable[[Artifact, str, str], Any],
        stop: Stop | None = None,
        ranks: Ranks | None = None,
        serve: Callable[[Artifact, str, Runtime, Callable[[], None]], Any] | None = None,
    ):
        self.runtime, self._open_model, self._serve = runtime, open_model, serve
        self.stop, self.ranks = stop or Stop(), ranks or Ranks()
        self.rank, self.world_size = self.ranks.rank, self.ranks.size
        self.micro_batch, self.checkpoint_seconds = runtime.micro_batch, runtime.checkpoint_seconds
        self._opened: tuple[str, str, str] | None = None
        self._model: Any = None
        self._shown = 0.0
        self.together = False  # whether all ranks are inside a build, and meet at its boundaries

    @property
    def opened(self) -> str | None:
        """The key of the open model."""
        return self._opened[0] if self._opened else None

    def prepare(self) -> None:
        """What must be loaded before the first build: the device is decided from it."""
        import torch  # noqa: F401

    @property
    def device(self) -> str:
        """Known once torch is loaded. ConfigError where the one that was chosen is not on this machine."""
        chosen = self.runtime.device
        if chosen == "cpu" or "torch" not in sys.modules:
            return chosen
        there = devices()
        if chosen == "auto":
            return there[0].partition(":")[0]
        if chosen not in there and f"{chosen}:0" not in there:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            told = f" (CUDA_VISIBLE_DEVICES={seen})" if seen is not None else ""
            told = f"runtime.device={chosen}: torch finds {', '.join(there)} on this machine{told}"
            raise ConfigError(f"{told}; choose one of them or auto")
        return chosen

    def model(self, artifact: Artifact, precision: str, kind: str = "hf") -> Any:
        if self._opened != (artifact.key, precision, kind):
            self.close()
            if kind == "vllm":
                assert self._serve  # whoever builds such a stage can
                self._model = self._serve(artifact, precision, self.runtime, self.boundary)
            else:
                self._model = self._open_model(artifact, precision, self.device)
            self._opened = (artifact.key, precision, kind)
        return self._model

    def close(self) -> None:
        """Let the open model go, and its memory on the accelerator; a server of its own ends."""
        if self._opened and self._opened[2] == "vllm":
            self._model.close()
        self._model, self._opened = None, None
        if "torch" in sys.modules:
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def begin(self, out: Path) -> None:
        self.together = True

    def end(self) -> None:
        self.ranks.agree("")
        self.together = False

    def boundary(self, keep: Callable[[], None] | None = None) -> None:
        """Rank 0 that waits for another builder is alone: the others wait for its word."""
        reason = self.ranks.agree(self.stop.reason) if self.together else self.stop.reason
        if reason:
            if keep:
                keep()
            raise Stopped(reason)

    def progress(self, done: int, total: int, what: str, keep: Callable[[], None] | None = None) -> None:
        self._show(done, total, what)
        if done < total:  # what is finished needs no stop
            self.boundary(keep)

    def _show(self, done: int, total: int, what: str) -> None:
        if not sys.stderr.isatty():
            return
        now = time.monotonic()
        if done >= total:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        elif now - self._shown > 0.1:
            self._shown = now
            print(f"\r\033[K  {what} {done:,}/{total:,}", end="", file=sys.stderr, flush=True)

    def show(self, point: dict[str, float]) -> None:
        """Nobody watches."""

    def log(self, message: str) -> None:
        if self.rank == 0:
            LOGGER.info(message)


def devices() -> list[str]:
    """What torch can compute on here, the fastest first."""
    import torch

    found = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or this machine had too little memory; torch, cuBLAS and NCCL say it in words of their own."""
    if isinstance(error, RuntimeError):
        told = f"{type(error).__name__}: {error}".lower()
        return any(words in told for words in ("outofmemory", "out of memory", "alloc_failed", "allocate memory"))
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


@contextlib.contextmanager
def isolated(threads: int) -> Iterator[None]:
    """A stage leaves random state, thread count and default dtype as it found them: two orders of building agree."""
    import random

    import numpy
    import torch

    before = (random.getstate(), numpy.random.get_state(), torch.get_rng_state(), torch.get_num_threads())
    dtype, devices = torch.get_default_dtype(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        random.setstate(before[0])
        numpy.random.set_state(before[1])
        torch.set_rng_state(before[2])
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
        torch.set_num_threads(before[3])
        torch.set_default_dtype(dtype)
