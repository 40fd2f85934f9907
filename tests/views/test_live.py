"""What a launch shows: on a terminal a view that is redrawn, with the lines in a file; elsewhere the lines."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.views.report.conftest import Study
from tests.views.track.test_wandb import Listener, on_terminal

SCRIPT = """
import logging, sys, time
from pathlib import Path
from synthdiv.core.ledger import Ledger
from synthdiv.core.terminal import echo, log_handler, overwrite
from synthdiv.views.live import live_view

logger = logging.getLogger("synthdiv")
logger.handlers, logger.level, logger.propagate = [log_handler()], logging.INFO, False
root = Path(sys.argv[1])
with live_view(root, "eggs"):
    logger.info("collapse 4f1c built in 1.0 s")
    overwrite("  tokens 5/9")
    time.sleep(2.5)
    echo("failed: truth 4f1c", error=True)
logger.info("after")
"""


@pytest.fixture
def launched(tmp_path: Path) -> Path:
    study = Study(tmp_path)
    cell = study.cell("human", 1.0, build="some")
    study.ledger.event(cell.suites["collapse"], "built", 2.0)
    study.ledger.event(cell.suites["truth"], "failed", 1.0, note="no such file\nin two lines", failure="input")
    return tmp_path


def test_a_terminal_has_a_view_and_the_log_the_lines(launched: Path) -> None:
    server = Listener()
    code, output = on_terminal(SCRIPT, launched, server)
    server.socket.close()
    assert code == 0, output
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert "eggs: 1 cell failed" in text
    assert re.search(r"nodes: .*1 failed", text)
    assert re.search(r"failed: truth \w{8}: no such file\r", text)
    assert "built in" not in text
    assert "tokens 5/9" not in text
    assert text.count("failed: truth 4f1c") == 1, "what is printed stays"
    (log,) = (launched / "sweeps" / "eggs" / "logs").glob("launch-*.log")
    assert log.read_text() == "collapse 4f1c built in 1.0 s\n"
    assert text.rstrip().endswith(f"log: {log}\r\nafter")
    assert output.rstrip().endswith("after")
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1, "the cursor is shown again"


def test_without_a_terminal_lines_are_lines(launched: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(launched)], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["collapse 4f1c built in 1.0 s", "failed: truth 4f1c", "after"]
    assert not list(launched.glob("sweeps/eggs/logs/launch-*"))
