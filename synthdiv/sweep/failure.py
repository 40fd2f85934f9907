"""The classes of failure, and what each asks for."""

from __future__ import annotations

import sys

from synthdiv.store import disk_full
from synthdiv.types import ConfigError, DataError, SynthdivError

MEMORY = "out of memory"
DISK = "disk full"
INPUT = "bad input"  # a bad value, a missing file, a loss that is no number: the same again fails again
TIME = "time limit"
LOST = "killed"  # the process is gone without a word: memory, a node of the cluster, somebody's kill
BUG = "unforeseen"
AGAIN = (TIME, LOST)  # worth another attempt as it is


def class_of(error: BaseException) -> str:
    """The class of an error that a build raised."""
    if disk_full(error) or (error.__cause__ and disk_full(error.__cause__)):
        return DISK
    if isinstance(error, MemoryError) or _of_torch(error) or "can't allocate memory" in str(error):
        return MEMORY
    return INPUT if isinstance(error, ConfigError | DataError | SynthdivError) else BUG


def _of_torch(error: BaseException) -> bool:
    return "torch" in sys.modules and isinstance(error, sys.modules["torch"].OutOfMemoryError)


def message_of(error: BaseException) -> str:
    """What a person reads: our own messages say all, of others the type matters too."""
    return str(error) if isinstance(error, SynthdivError) else f"{type(error).__name__}: {error}"
