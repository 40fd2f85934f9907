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
    if missing:
        raise DataError(
            f"{source}: {recorded.path} has no answer for {len(missing)} of {len(keys)} prompts "
            f"(first {missing[0]!r}). Leave these prompts out of the set, or take another source"
        )
    (shard.out / ROWS).write_bytes(b"")  # an earlier builder may have left an incomplete file
    yield [(request, Answer(texts[key], "recorded", -1, -1)) for request, key in zip(requests, keys, strict=True)]
