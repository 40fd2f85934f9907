"""The classes of failure, and what each asks for."""

from __future__ import annotations

from synthdiv.core.local_run import out_of_memory
from synthdiv.core.store import disk_full
from synthdiv.core.types import SynthdivError, Unavailable

MEMORY = "out of memory"
DISK = "disk full"
INPUT = "bad input"  # a bad value, a missing file, a loss that is not a number: the same command fails again
UNAVAILABLE = "unavailable"  # a hosted server, or the budget for it: the same command continues later
TIME = "time limit"
LOST = "killed"  # the process ended without an error of its own: by the kernel, the cluster or a person
BUG = "unexpected error"
OTHER_RANK = ("gloo/transport", "Connection reset by peer", "ncclRemoteError", "NCCL communicator was aborted")


def class_of(error: BaseException) -> str:
    """The class of an error that a build raised."""
    if disk_full(error) or (error.__cause__ and disk_full(error.__cause__)):
        return DISK
    if out_of_memory(error):
        return MEMORY
    if isinstance(error, SynthdivError):
        return UNAVAILABLE if isinstance(error, Unavailable) else INPUT
    return LOST if any(words in str(error) for words in OTHER_RANK) else BUG


def message_of(error: BaseException) -> str:
    """The message that a person reads: errors of other libraries are shown with their type."""
    if disk_full(error) and not isinstance(error, SynthdivError):
        return f"no space left on the disk of the outputs ({error}); free some and run the same command again"
    return str(error) if isinstance(error, SynthdivError) else f"{type(error).__name__}: {error}"
