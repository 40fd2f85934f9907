"""The `Run` of one process: its device, its one open model, its progress, its stop signal."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.ranks import Ranks
from synthdiv.core.runtime import Runtime
from synthdiv.core.terminal import overwrite
from synthdiv.core.types import Artifact, ConfigError, Stopped

LOGGER = logging.getLogger("synthdiv")
SMALL_MODEL = 1_000_000  # weights


@dataclass
class Stop:
    """Set by signals, in a handler that does nothing else, or when the launcher ends; read between steps and batches.
    The `reason` of a signal is in REASONS; a second Ctrl-C stops now, whatever the first signal was."""

    reason: str = ""
    now: bool = False
    _interrupts: int = 0
    _before: dict[int, Any] = field(default_factory=dict)

    def listen(self) -> None:
        for number in REASONS:
            self._before[number] = signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Nothing is left to stop. Python restores the default actions before it exits: a signal would kill it."""
        for number in REASONS:
            signal.signal(number, signal.SIG_IGN)

    def leave(self) -> None:
        """Handle signals again as before. Nothing is left for that of a time limit to stop, and it would kill."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if number == signal.SIGUSR2 else handler)

    def _handle(self, number: int, _frame: object) -> None:
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
        self.micro_batch = runtime.micro_batch
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
        """Known once torch is loaded. Raises ConfigError where the configured one is not on this machine."""
        device = self.runtime.device
        if device == "cpu" or "torch" not in sys.modules:
            return device
        available = devices()
        if device == "auto":
            return available[0].partition(":")[0]
        if device not in available and f"{device}:0" not in available:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            limit = f" (CUDA_VISIBLE_DEVICES={seen})" if seen is not None else ""
            raise ConfigError(
                f"runtime.device={device}: torch finds {', '.join(available)} on this machine{limit}; "
                "choose one of them or auto"
            )
        return device

    def model(self, artifact: Artifact, precision: str, kind: str = "hf") -> Any:
        if self._opened != (artifact.key, precision, kind):
            self.close()
            if kind == "vllm":
                assert self._serve  # whoever builds such a stage can
                self._model = self._serve(artifact, precision, self.runtime, self.boundary)
            else:
                self._model = self._open_model(artifact, precision, self.device)
            self._opened = (artifact.key, precision, kind)
        if kind == "hf":
            self.use_threads(getattr(self._model, "model", None))
        return self._model

    def use_threads(self, model: Any) -> None:
        """On a processor, one thread for a small model until the stage ends: more of them only wait for each other."""
        if self.device == "cpu" and not self.runtime.threads and model is not None:
            import torch

            if sum(weight.numel() for weight in model.parameters()) < SMALL_MODEL:
                torch.set_num_threads(1)

    def close(self) -> None:
        """Close the open model and free its memory on the accelerator; end its server."""
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
        """While rank 0 waits for another builder, the other ranks wait for rank 0."""
        reason = self.ranks.agree(self.stop.reason) if self.together else self.stop.reason
        if reason:
            if keep:
                keep()
            raise Stopped(reason)

    def progress(self, done: int, total: int, what: str, keep: Callable[[], None] | None = None) -> None:
        self._show(done, total, what)
        if done < total:  # finished work is not stopped
            self.boundary(keep)

    def _show(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if done >= total:
            overwrite()
        elif now - self._shown > 0.1:
            self._shown = now
            overwrite(f"  {what} {done:,}/{total:,}")

    def show(self, point: dict[str, float]) -> None:
        """Ignored; subclasses report it."""

    def log(self, message: str) -> None:
        if self.rank == 0:
            LOGGER.info(message)


def devices() -> list[str]:
    """The devices of this machine, the fastest first."""
    import torch

    names = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*names, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or this machine had too little memory; torch, cuBLAS and NCCL each have their own messages."""
    if isinstance(error, RuntimeError):
        message = f"{type(error).__name__}: {error}".lower()
        return any(words in message for words in ("outofmemory", "out of memory", "alloc_failed", "allocate memory"))
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


@contextlib.contextmanager
def isolated(threads: int) -> Iterator[None]:
    """A stage leaves random state, thread count and default dtype unchanged: stages built in any order give the same
    result. Attention is not that of cuDNN, which torch prefers on Hopper and which takes up to a second to plan for
    each new shape of a batch: nearly every batch has one."""
    import random

    import numpy
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    on_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    threads_before, dtype = torch.get_num_threads(), torch.get_default_dtype()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_devices is not None:
            torch.cuda.set_rng_state_all(on_devices)
        torch.set_num_threads(threads_before)
        torch.set_default_dtype(dtype)
