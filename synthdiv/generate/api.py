"""Answers from a server of others."""

from __future__ import annotations

from synthdiv.generate.answer import Answers, Shard


def answers(shard: Shard) -> Answers:
    raise NotImplementedError
