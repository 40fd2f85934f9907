"""The backend that reads answers from a file: it samples nothing and opens no model."""

from __future__ import annotations

from synthdiv.core.resolver import unchanged
from synthdiv.core.types import DataError
from synthdiv.generate.answer import ROWS, Answer, Answers, Shard
from synthdiv.prompts.table import normalise


def answers(shard: Shard) -> Answers:
    """All rows at once, each with the recorded answer to its prompt."""
    recorded, source, requests = shard.stage.recorded, shard.stage.source, shard.requests
    unchanged(f"{source}: recorded.path", recorded.path, recorded.sha256)
    texts = recorded.answers("generators.models.recorded")
    keys = [request.id if recorded.id else normalise(request.prompt) for request in requests]
    missing = [key for key in keys if key not in texts]
    if len(missing) == len(keys):
        raise DataError(f"{source}: {recorded.path} answers none of {len(keys)} prompts (first {missing[0]!r})")
    absent = Answer("", "failed", -1, -1, {"failed": "the file has no answer"})
    (shard.out / ROWS).write_bytes(b"")  # an earlier builder may have left an incomplete file
    answers = [Answer(texts[key], "recorded", -1, -1) if key in texts else absent for key in keys]
    yield list(zip(requests, answers, strict=True))
