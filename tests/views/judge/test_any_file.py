"""Any file of verdicts gives numbers in their bounds, or NaN with a reason, or an error of ours; never a warning."""

from __future__ import annotations

import contextlib
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.core.types import SynthdivError
from synthdiv.views.judge.judge_scores import pair_scores, rating_scores
from synthdiv.views.judge.labelled import read_labelled
from synthdiv.views.judge.verb import parser
from tests.conftest import write_rows

NAMES = st.sampled_from(["me", "oak", "elm"])
SHARE = st.sampled_from([0.0, 0.3, 0.5, 1.0, None])
TEXT = st.sampled_from(["", "short", "a longer text"])
PAIR = {"id": st.sampled_from("abc"), "first": NAMES, "second": NAMES, "order": st.sampled_from([0, 1])}
PAIR |= {"verdict": SHARE, "human": SHARE, "other": SHARE, "a": TEXT, "b": TEXT}
RATING = {"id": st.sampled_from("abc"), "author": NAMES, "a": TEXT}
RATING |= dict.fromkeys(("verdict", "human", "other"), st.sampled_from([1, 2.5, 5, None]))
COMMON = ["rows.jsonl", "--judge", "j", "--prompt", "id", "--label", "human", "--label", "other"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries(PAIR), min_size=1, max_size=12), st.booleans())
def test_pairs(tmp_path_factory, rows, own):
    words = [
        "--pair",
        "first",
        "second",
        "--order",
        "order",
        "--text",
        "a",
        "b",
        *(["--judge-author", "me"] if own else []),
    ]
    examine(tmp_path_factory, rows, words, pair_scores)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries(RATING), min_size=1, max_size=12))
def test_ratings(tmp_path_factory, rows):
    examine(tmp_path_factory, rows, ["--author", "author", "--text", "a", "--judge-author", "me"], rating_scores)


def examine(tmp_path_factory, rows, words, scores_of):
    file = tmp_path_factory.getbasetemp() / "rows.jsonl"
    write_rows(file, rows)
    options = parser().parse_args([str(file), *COMMON[1:], *words])
    with contextlib.suppress(SynthdivError):
        scores = scores_of(read_labelled(options), options.judge_author)
        for score in (score for members in scores.values() for score in members):
            assert score.note or not math.isnan(score.value), score
            assert math.isnan(score.low) or score.low <= score.value <= score.high, score
            assert not score.unit.startswith("share") or math.isnan(score.value) or -1 <= score.value <= 1, score
