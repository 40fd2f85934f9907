"""Commands of tests in processes of their own, each forked from one that has imported what a study needs: to import it
again takes longer than most studies of tests."""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    "torch._dynamo", "transformers.models.llama.modeling_llama", "lightning", "peft", "deepspeed", "scipy.stats",
    "hydra.main", "hydra.core.override_parser.overrides_parser", "sacrebleu", "datasketch", "pyarrow.parquet", "pandas",
)  # fmt: skip


class Process:
    """A command that runs: what tests use of `subprocess.Popen`, with its output as text."""

    def __init__(self, words: list[str], status: socket.socket, files: list[IO[bytes]]) -> None:
        self.args, self.status, self.files = words, status, files
        self.output = ["", ""]
        self.returncode: int | None = None
        self.pid = int(status.recv(20))

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self.status], [], [], 0)[0]:
            self.wait(None)
        return self.returncode

    def wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            self.status.settimeout(timeout)
            self.returncode = int(self.status.recv(20))
            self.status.close()
            for number, file in enumerate(self.files):
                with file:
                    file.seek(0)
                    self.output[number] = file.read().decode()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, ...]:
        self.wait(timeout)
        return tuple(self.output)


class Warm:
    """The process that forks."""

    def __init__(self) -> None:
        self.environment = read_at_import(dict(os.environ))
        self.socket, other = socket.socketpair(type=socket.SOCK_SEQPACKET)
        words = [sys.executable, "-m", "tests.warm", str(other.fileno())]
        self.process = subprocess.Popen(words, cwd=ROOT, pass_fds=[other.fileno()])
        other.close()
        atexit.register(self.close)

    def close(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def start(
        self, words: list[str], cwd: Path, output: IO[Any] | None = None, program: str = "synthdiv.__main__",
        environment: dict[str, str] | None = None, **env: str,
    ) -> Process:  # fmt: skip
        """`program`: the module whose `main` runs. `output` takes what it prints; without it `communicate` gives it.
        `env` is added to the environment, which is that of this process where none is given."""
        files = [] if output else [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 (`wait` closes them)
        status, other = socket.socketpair(type=socket.SOCK_SEQPACKET)
        request = {"words": words, "cwd": str(cwd), "environment": (environment or dict(os.environ)) | env}
        request["program"] = program
        descriptors = [other.fileno(), *(file.fileno() for file in files or [output] * 2)]
        socket.send_fds(self.socket, [json.dumps(request).encode()], descriptors)
        other.close()
        return Process(words, status, files)


def read_at_import(environment: dict[str, str]) -> dict[str, str]:
    """What modules read when they are imported: a command for which it differs is not one for `Warm`."""
    first = ("DS_", "HF_", "LANG", "LC_", "OMP_", "PYTHON", "TORCH", "TRANSFORMERS_")
    return {name: value for name, value in environment.items() if name.startswith(first)}


def serve(requests: socket.socket) -> str:
    """Fork for each request. Returns in the process that becomes the command the module whose `main` is to run; another
    one waits for its end."""
    while True:
        data, files, *_ = socket.recv_fds(requests, 1 << 20, 3)
        if not data:
            sys.exit()
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = socket.socket(fileno=files[0])
    if process := os.fork():
        status.send(str(process).encode())
        status.send(str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])).encode())
        os._exit(0)
    status.close()
    request = json.loads(data)
    for number, file in enumerate(files[1:], 1):
        os.dup2(file, number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv, sys.path[0] = ["synthdiv", *request["words"]], ""
    return request["program"]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that wait for commands are nobody's zombies
    # Modules look for accelerators when they are imported, and a process cannot use one that its parent has looked at.
    for name in () if any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd"))) else MODULES:
        importlib.import_module(name)
    importlib.import_module("synthdiv.__main__")
    gc.freeze()  # a child would copy what it only reads
    importlib.import_module(serve(socket.socket(fileno=int(sys.argv[1])))).main()
