"""What a manifest records about the process that built an artifact: commit, versions, device."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
import time
import zlib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import synthdiv
from synthdiv.core.types import ConfigError, Run

version = cache(metadata.version)  # a look-up reads a file, and the version of what is loaded does not change


@cache
def commit() -> dict[str, Any]:
    """The commit of this code and whether the tree was changed since; empty where it is not a checkout."""
    root = Path(__file__).resolve().parents[2]

    def ask(*words: str) -> str:
        git = ["git", "-C", str(root), *words]
        return subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")) != root:
            return {}
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def accelerator(device: str) -> str:
    """The name of the hardware behind `device`: rates of one are no rates of another."""
    if device.startswith("cuda") and "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(device)
    return cpu_name()


@cache
def cpu_name() -> str:
    """The model of this processor, as far as the system says."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def device_of(run: Run) -> str:
    """The device of a build; cpu where the configured one is missing, because some stages need none."""
    try:
        return run.device
    except ConfigError:
        return "cpu"


def session(run: Run, seconds: float) -> dict[str, Any]:
    """Provenance of one process that worked on an artifact."""
    loaded = {name: name for name in ("torch", "transformers", "lightning", "peft", "datasets", "numpy", "tokenizers")}
    loaded |= {name: name for name in ("scipy", "sacrebleu", "zstandard")}
    loaded |= {"sklearn": "scikit-learn", "faiss": "faiss-cpu", "sentence_transformers": "sentence-transformers"}
    return {
        **commit(),
        "versions": {"synthdiv": synthdiv.__version__, "python": platform.python_version()}
        | {package: version(package) for module, package in loaded.items() if module in sys.modules}
        | {"zlib": zlib.ZLIB_RUNTIME_VERSION},
        "host": platform.node(),
        "device": device_of(run),
        "accelerator": accelerator(device_of(run)),
        "ranks": run.world_size,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 3),
    }
