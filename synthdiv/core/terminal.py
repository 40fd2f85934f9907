"""The one place that writes to a terminal.

Messages of servers, rows of files and names of columns are shown as text: a control character in them could move the
cursor, hide a line or rename the window, so it is written as the escape that JSON has for it.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

# C0 but tab and newline, DEL, C1, line separators, marks that reverse a line, halves of surrogate pairs
CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


end_live: Callable[[], None] | None = None
"""Ends the view that is redrawn, where there is one: before a question to the user, and at the end."""


def clean(text: str) -> str:
    """The text with its control characters as `\\u001b`: what is JSON stays JSON."""
    return CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\r\n", "\n"))


def echo(text: str, error: bool = False, end: str = "\n") -> None:
    """Print to the standard output, or to the error output."""
    print(clean(text), end=end, file=sys.stderr if error else sys.stdout, flush=True)


def echo_traceback(error: BaseException) -> None:
    echo("".join(traceback.format_exception(error)), error=True, end="")


def overwrite(text: str = "") -> None:
    """Replace the last line of the error output, if that is a terminal on which nothing else is drawn."""
    if sys.stderr.isatty() and end_live is None:
        print(f"\r\033[K{clean(text)}", end="", file=sys.stderr, flush=True)


class CleanFormatter(logging.Formatter):
    """Messages and tracebacks of the log."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


def log_handler(file: Path | None = None) -> logging.Handler:
    """Writes log messages to a file, or to the error output."""
    handler = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler()
    handler.setFormatter(CleanFormatter("%(message)s"))
    return handler
