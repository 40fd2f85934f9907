"""Where and how fast things run. Nothing here is identity: another device or batch gives the same keys."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from synthdiv.core.fields import listed_twice, setting
from synthdiv.core.strategy import Strategy, deepspeed_problems, trainer_problems


@dataclass(unsafe_hash=True)
class Server:
    """A server that speaks OpenAI's protocol. Limits hold for all processes that share the outputs."""

    name: str = ""
    """The name that hosted models refer to."""
    url: str = ""
    """The address, like https://api.example.com/v1. `{NAME}` in it is the value of that environment variable."""
    key: str = ""
    """The name of the environment variable that holds the key; empty: the server needs none."""
    concurrency: int = setting(32, above=0)
    """Requests in flight, of all processes that share the outputs."""
    requests_per_minute: int | None = setting(None, above=0)
    """Quota of requests, for all processes that share the outputs; null: none."""
    tokens_per_minute: int | None = setting(None, above=0)
    """Quota of tokens, prompts and answers together, likewise; null: none."""
    attempts: int = setting(6, above=0)
    """Attempts for each request. A 429 does not count: it delays all requests, and is an error after so many minutes of
    429 alone."""
    timeout_seconds: float = setting(300.0, above=0)
    """Time limit of each attempt."""

    def check(self, name: str) -> list[str]:
        """What may be secret is not repeated: a key in place of its name, a password in an address."""
        problems = [] if self.name else [f"{name}.name: needs a name"]
        if not re.fullmatch(r"https?://[^@/?#\s]+(/[^?#\s]*)?", self.url):
            problems.append(f"{name}.url: needs http://… or https://…, no user (@), no query (?) and no fragment (#)")
        path = re.sub(r"{\w+}", "", self.url).partition("//")[2].partition("/")[2]
        if any(len(word) > 20 for word in re.split(r"[/._-]", path)) or re.search(r"\bsk-", path):
            problems.append(
                f"{name}.url: a part of its path may be a key; put it into an environment variable, and the variable's "
                "{NAME} in its place"
            )
        long = max(map(len, self.key.split("_"))) > 20  # keys have words so long, names have not
        if self.key and (long or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key)):
            problems.append(f"{name}.key: give the name of an environment variable, never the key itself")
        return problems


@dataclass
class Runtime:
    """Where and how fast things run."""

    outputs: str = "outputs"
    """The folder of artifacts, sweeps and reports."""
    device: str = "auto"
    """auto (the fastest here), cpu, cuda, cuda:N or mps."""
    threads: int = setting(0, least=0)
    """Threads of a process; 0: as many as torch takes, and one for models of less than a million weights."""
    micro_batch: int = setting(0, least=0)
    """Rows that a device takes at once; 0: the whole effective batch."""
    checkpoint_seconds: float = setting(300.0, above=0)
    """Wall time between two checkpoints of a training."""
    heartbeat_seconds: float = setting(10.0, above=0)
    """Interval at which builders show that they are alive."""
    servers: list[Server] = field(default_factory=list)
    """The servers of hosted models."""
    budget_usd: float | None = setting(None, least=0)
    """What all requests ever made from these outputs may cost, in USD; null: no limit."""
    budget_tokens: int | None = setting(None, least=0)
    """Tokens of all requests ever made from these outputs, prompts and answers together; null: no limit."""
    compile: bool = False
    """torch.compile for training and generation: faster after half a minute to a minute; last bits differ."""
    vllm: str = "vllm"
    """The command of vLLM, which may be installed in another environment."""
    vllm_options: list[str] = field(default_factory=list)
    """More words for `vllm serve`."""
    tensor_parallel: int = setting(1, least=1)
    """Devices of one vLLM."""
    strategy: Strategy = Strategy.auto
    """How several ranks train one model; one rank trains without a strategy, unless it offloads."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Options of Lightning's Trainer: callbacks, logger, profiler, plugins, log_every_n_steps, detect_anomaly."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """Options merged into DeepSpeed's configuration, in its own names; for the strategies deepspeed_stage_…."""
    gradient_checkpointing: bool = False
    """Computes activations again in the backward pass instead of keeping them: less memory, the same numbers."""

    def check(self, name: str) -> list[str]:
        problems = []
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            problems.append(f"{name}.device={self.device!r}: choose auto, cpu, cuda, cuda:N or mps")
        problems += listed_twice(f"{name}.servers", (server.name for server in self.servers), "servers")
        problems += trainer_problems(self.trainer) + deepspeed_problems(self.deepspeed, self.strategy)
        if self.device == "mps" and self.strategy.sharded:
            problems.append(f"{name}.strategy={self.strategy.value}: needs {name}.device=cuda or cpu, not mps")
        return problems
