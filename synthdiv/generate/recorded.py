"""A file of existing answers: nothing is sampled, and no model is opened.

Needs: `recorded`.

Tested on: CPU.
"""

from __future__ import annotations

from synthdiv.core.resolver import unchanged
from synthdiv.core.types import DataError
from synthdiv.generate.answer import Answer, Answers, Shard


def answers(shard: Shard) -> Answers:
    """All rows at once, each with the recorded answer to its prompt."""
    recorded, source, requests = shard.stage.recorded, shard.stage.source, shard.requests
    unchanged(f"{source}: recorded.path", recorded.path, recorded.sha256)
    texts = recorded.answers("generators.models.recorded", shard.stage.samples)
    keys = [recorded.key(request.id, request.prompt) for request in requests]
    if not any(key in texts for key in keys):
        raise DataError(f"{source}: {recorded.path} answers none of {len(keys)} prompts (first {keys[0]!r})")
    absent = Answer("", "failed", -1, -1, {"failed": "the file has no answer"})
    yield [
        (request, Answer(texts[key][request.sample], "recorded", -1, -1) if key in texts else absent)
        for request, key in zip(requests, keys, strict=True)
    ]
