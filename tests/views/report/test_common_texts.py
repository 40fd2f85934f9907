"""Comparisons of `@texts` measures are on prompts that both arms answer at length, and survive half the length."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from synthdiv.core.types import Sample, Score
from synthdiv.measures.budgets import TextBudget
from synthdiv.prompts.split import rank
from synthdiv.study.claims import DeclaredClaim
from synthdiv.views.report.contrasts import NOT_SHOWN, SHOWN, Contrast
from synthdiv.views.report.findings import judged
from tests.views.report.test_contrasts import Sweep

MEASURE, LENGTH, TEXTS = "plain/distinct_2@texts", 24, 4
PROMPTS = sorted((f"p{at}" for at in range(12)), key=lambda key: rank(0, "texts", key))


def added(sweep: Sweep, mix: str, take: int, answers: dict[str, list[str]]) -> None:
    """A model whose suite has measured these answers; its score is that of its own first texts."""
    row = sweep.add(mix, [1.0], take)
    suites = sweep.root / "artifacts"
    long = [words[:LENGTH] for words in answers.values() if len(words) >= LENGTH]
    scores = (Score(MEASURE, distinct(long[:TEXTS]), TEXTS, higher_is_better=True),
              Score("plain/passed_over@texts", 1 - len(long) / len(answers), len(answers)))  # fmt: skip
    row.scores.update({each.name: each for each in scores})
    row.origin.update({each.name: row.key for each in scores})
    row.suites.update({each.name: "collapse" for each in scores})
    budget = dataclasses.asdict(TextBudget(texts=TEXTS, length=LENGTH))
    taken = {"plain/answers": {"stage": "generate", "key": f"g{row.key}"}}
    manifest = {"files": {}, "inputs": taken, "fields": budget}
    (suites / "suite" / row.key / "manifest.json").write_text(json.dumps(manifest))
    folder = suites / "generate" / f"g{row.key}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"files": {}}')
    lines = [json.dumps(dataclasses.asdict(Sample(key, "?", " ".join(words), mix))) for key, words in answers.items()]
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in reversed(lines)))


def distinct(texts: list[list[str]]) -> float:
    pairs = [pair for text in texts for pair in pairwise(text)]
    return len(set(pairs)) / len(pairs)


def unique(key: str, count: int) -> list[str]:
    return [f"{key}x{at}" for at in range(count)]


def compared(sweep: Sweep, human_starts: int, human_is_long: int) -> Contrast:
    """Several sources, whose answers begin with one word ten times, with human answers that begin with so many
    different words and go on with one; so many human answers are long. The other prompts have no repetition."""
    gaps, short = [], PROMPTS[: 12 - human_is_long]
    for take in range(4):
        several = {key: ["so"] * 10 + unique(f"{take}{key}", 13 - take) + ["and"] * 9 for key in PROMPTS}
        human = {key: unique(f"h{take}{key}", human_starts) + ["on"] * 30 for key in PROMPTS}
        added(sweep, "multi", take, several | {key: unique(f"{take}{key}", LENGTH) for key in short})
        added(sweep, "human", take, human | {key: unique(f"h{take}{key}", LENGTH // 2 - 1) for key in short})
        texts = ([arm[key][:LENGTH] for key in PROMPTS if key not in short][:TEXTS] for arm in (several, human))
        gaps.append(distinct(next(texts)) - distinct(next(texts)))
    made = sweep.contrasts(MEASURE)["multi - human", MEASURE]
    assert made.effect.value == pytest.approx(np.mean(gaps))
    assert made.effect.n == TEXTS
    return made


def test_a_comparison_of_texts_is_on_the_prompts_where_both_arms_have_long_answers(tmp_path: Path) -> None:
    made = compared(Sweep(tmp_path), human_starts=2, human_is_long=11)
    assert (made.verdict, made.effect.note) == (SHOWN, "")


@pytest.mark.parametrize(("human_starts", "verdict"), [(1, SHOWN), (8, NOT_SHOWN)])
def test_a_comparison_of_selected_texts_is_shown_only_with_the_same_sign_at_half_the_length(
    tmp_path: Path, human_starts: int, verdict: str
) -> None:
    """At 12 words the several sources have two pairs that are not of one word alone."""
    made = compared(Sweep(tmp_path), human_starts, human_is_long=6)
    assert made.verdict == verdict
    same = "the same sign at half the length" if verdict == SHOWN else "not shown: 0."
    assert f"selected: the shares of prompts passed over differ by 0.50; {same}" in made.note
    assert (judged(DeclaredClaim("multi - human", MEASURE), made, "").p < 0.05) == (verdict == SHOWN)
    assert np.isfinite(made.effect.interval()).all() == (verdict == SHOWN)
