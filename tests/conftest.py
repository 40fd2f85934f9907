"""What several tests share: a tiny toy study on the command line, and one small trained model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("everyday", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("everyday")

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "prompts.toy.rows=60",
    "prompts.test=12",
    "generators.shard_rows=4",
    "evaluate.words=100",
    "evaluate.truth_prompts=2",
    "evaluate.respond.subset=4",
    "evaluate.respond.samples=2",
    "train.epochs=1",
    "student.pretrain.tokens=3000",
    "student.pretrain.toy.rows=200",
    *(f"generators.models.{index}.pretrain.tokens=3000" for index in range(4)),
    *(f"generators.models.{index}.pretrain.toy.rows=200" for index in range(4)),
]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "synthdiv", *words]


def synthdiv(*words: str, cwd: Path, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would; `code` is the exit code that is expected (None: any)."""
    done = subprocess.run(command(*words), cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=500)
    assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr or code is None, done.stderr
    return done


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny study: human, single and multi, two seeds of one student."""
    folder = tmp_path_factory.mktemp("study")
    synthdiv("-m", "mix=human,single,multi", "train.seed=0,1", "sweep=tiny", *TINY, cwd=folder)
    return folder
