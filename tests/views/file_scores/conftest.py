"""A small file of answers, and the scores that the command prints of a file."""

from __future__ import annotations

import json
import random

import pytest

KEYS = ["group", "name", "value", "n", "low", "high", "unit", "higher_is_better", "note"]
WORDS = ("river", "engine", "garden", "letter", "planet", "violin", "bridge", "forest", "harbour", "window", "sings")


def answers(count: int = 40, sources: tuple[str, ...] = ("oak", "elm"), length: int = 60) -> list[dict[str, object]]:
    """Each source answers each of `count` prompts; rows are sorted by source, as files often are."""
    order = random.Random(1)
    return [
        {"id": prompt, "source": source, "response": " ".join(order.choices(WORDS, k=length + prompt % 7))}
        for source in sources
        for prompt in range(count)
    ]


@pytest.fixture
def scores_of(typed):
    """The scores that the command prints as JSON, by group and name."""

    def run(*words: str) -> dict[str, dict[str, dict[str, object]]]:
        output = typed("measure", *words, "--json")
        assert output.code == 0, output.err
        scores: dict[str, dict[str, dict[str, object]]] = {}
        for record in json.loads(output.out, parse_constant=pytest.fail):
            assert list(record) == KEYS
            scores.setdefault(record["group"], {})[record["name"]] = record
        return scores

    return run
