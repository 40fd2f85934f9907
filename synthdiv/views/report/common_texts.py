"""The `@texts` scores of a sweep, on the prompts that all of its arms answered in enough words.

A suite knows its own student and the vanilla one, and leaves out the prompts that are short in either; which are
short in any arm is known only where all arms are. So the report measures them again, and shows these in their place.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthdiv.core.store import MANIFEST
from synthdiv.core.types import Score
from synthdiv.measures.budgets import texts_scores

FILE = "texts.parquet"

Answers = dict[Hashable, list[list[str]]]  # by prompt, as words


def common_texts(suites: Mapping[str, Path], vanilla: Mapping[str, str]) -> dict[str, dict[str, Score]]:
    """The `@texts` scores of each collapse suite, by the suite's name (as notes show it) and the score's.

    `suites` are the finished ones, `vanilla` the name of each one's vanilla student. Suites with one decoding, one
    length and one set of prompts are compared.
    """
    groups: dict[str, dict[str, Answers]] = defaultdict(dict)
    settings: dict[str, tuple[str, int, int]] = {}
    for key, path in suites.items():
        if not (path / FILE).exists():  # measured before there were two budgets
            continue
        fields = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["fields"]
        for decoding, answers in read(path).items():
            name = json.dumps([decoding, fields["texts"], fields["seed"], sorted(map(str, answers))])
            groups[name][key] = answers
            settings[name] = (decoding, fields["texts"], fields["seed"])
    results: dict[str, dict[str, Score]] = defaultdict(dict)
    for name, arms in groups.items():
        decoding, length, seed = settings[name]
        pairs = {key: vanilla[key] for key in arms if vanilla.get(key) in arms}
        for key, scores in texts_scores(arms, pairs, length, seed).items():
            results[key] |= {f"{decoding}/{s.name}": replace(s, name=f"{decoding}/{s.name}") for s in scores}
    return dict(results)


def read(path: Path) -> dict[str, Answers]:
    """The cut answers of a suite by decoding and prompt, in the order of the suite."""
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path / FILE).to_pylist()
    answers: dict[str, Answers] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        answers[row["decoding"]][row["prompt"]].append(row["words"].split())
    return dict(answers)
