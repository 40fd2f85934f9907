"""What happened in a folder: transitions, artifacts, and workers that are still alive."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil

from synthdiv.core.ledger import Ledger
from synthdiv.core.stage import Node

WAIT = 200  # seconds until a test gives up; nothing is measured by it


def manifests(folder: Path) -> dict[str, dict]:
    """Manifests by key, without the files that differ between runs: the log of requests, and rates of training."""
    manifests = {}
    for path in (folder / "outputs" / "artifacts").glob("*/*/manifest.json"):
        manifests[path.parent.name] = json.loads(path.read_text())
        for name in ("requests.jsonl", "metrics.parquet"):
            manifests[path.parent.name]["files"].pop(name, None)
    return manifests


def built(root: Path, *names: str) -> Counter[str]:
    """How often each node was built, in all these sweeps."""
    return Counter(event.node for name in names for event in Ledger(root, name).events() if event.state == "built")


def transitions(root: Path, node: Node) -> list[tuple[str, int]]:
    """The transitions of a node in the order of attempts; progress left out."""
    events = [event for event in Ledger(root, "s").events() if event.node == node.key and event.state != "queued"]
    return list(dict.fromkeys((event.state, event.attempt) for event in sorted(events, key=lambda e: e.attempt)))


def orphans(folder: Path) -> list[int]:
    """Workers of this folder that are still alive."""
    alive = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or [])
        if "synthdiv.worker" in words and process.info["cwd"] == str(folder):
            alive.append(process.pid)
    return alive


def wait_for(true, process: subprocess.Popen | None = None) -> None:
    until = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < until, "it never came to that"
        assert process is None or process.poll() is None, "it ended before"
        time.sleep(0.01)
