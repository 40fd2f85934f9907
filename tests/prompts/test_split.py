"""Groups stay in one split; the order is stratified and does not depend on the order of the file."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.prompts.split import groups, near_duplicates, nearly_in, ordered, shingles, split

WORDS = [f"word{number}" for number in range(19)]


def record(number, prompt, context="", category="a"):
    return {"id": f"p{number}", "prompt": prompt, "instruction": prompt, "context": context, "category": category}


sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
tables = st.lists(
    st.tuples(sentences, st.sampled_from(["", "", "shared text", "other text"]), st.sampled_from("abc")),
    min_size=4,
    max_size=40,
).map(lambda rows: [record(number, *row) for number, row in enumerate(rows)])


@given(tables, st.integers(0, 10), st.integers(0, 10), st.integers(0, 5))
def test_groups_stay_in_one_split_and_sizes_are_not_exceeded(records, test, target, seed):
    members = groups(records)
    sides = split(records, members, {"test": test, "target": target}, seed)
    for group in set(members):
        assert len({side for side, member in zip(sides, members, strict=True) if member == group}) == 1
    assert sides.count("test") <= test
    assert sides.count("target") <= target


@given(tables)
def test_equal_instructions_contexts_and_near_duplicates_share_a_group(records):
    members = groups(records)
    for i, left in enumerate(records):
        for j, right in enumerate(records[:i]):
            same_context = left["context"] and left["context"] == right["context"]
            if same_context or left["instruction"].lower() == right["instruction"].lower():
                assert members[i] == members[j]


@given(tables, st.integers(0, 5), st.randoms())
def test_the_order_of_the_file_does_not_matter(records, seed, chance):
    shuffled = records.copy()
    chance.shuffle(shuffled)
    everything = range(len(records))
    assert [records[i]["id"] for i in ordered(records, list(everything), seed)] == [
        shuffled[i]["id"] for i in ordered(shuffled, list(everything), seed)
    ]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(0, 5), st.data())
def test_every_prefix_is_stratified(sizes, seed, data):
    records = [record(f"{s}-{i}", "x", category=str(s)) for s, size in enumerate(sizes) for i in range(size)]
    order = ordered(records, list(range(len(records))), seed)
    length = data.draw(st.integers(1, len(records)))
    counts = Counter(records[index]["category"] for index in order[:length])
    assert all(abs(counts[str(s)] - length * size / len(records)) <= 2 for s, size in enumerate(sizes))


def test_singletons_fill_the_split_exactly_and_in_proportion():
    records = [record(i, f"{WORDS[i % 19]} {i} {i * 7}", category="ab"[i % 3 == 0]) for i in range(300)]
    sides = split(records, list(range(300)), {"test": 60, "target": 30}, 1)
    assert Counter(sides) == {"train": 210, "test": 60, "target": 30}
    strata = Counter(r["category"] for r, side in zip(records, sides, strict=True) if side == "test")
    assert strata == {"a": 40, "b": 20}


def test_other_seeds_hold_out_other_prompts():
    records = [record(i, f"word{i} and word{i + 1000}") for i in range(100)]
    sides = [split(records, list(range(100)), {"test": 20}, seed) for seed in (0, 1)]
    assert sides[0] != sides[1]


def test_near_duplicates_by_exact_similarity():
    """All pairs above 0.8 and no other, on texts that differ by a few words."""
    chance = random.Random(0)
    base = [" ".join(chance.choices(WORDS, k=40)) for _ in range(30)]
    texts = base + [text + " extra" for text in base[:15]] + [" ".join(text.split()[:20]) for text in base[15:]]
    sets = [shingles(text) for text in texts]
    close = {
        (i, j) for j in range(len(texts)) for i in range(j) if len(sets[i] & sets[j]) >= 0.8 * len(sets[i] | sets[j])
    }
    assert len(close) >= 15
    assert set(near_duplicates(texts)) == close


CHINESE = "请详细说明怎样在家里种植番茄，并给出每周的浇水时间表"
JAPANESE = "トマトの育て方を初心者にも分かるように説明してください"
FRENCH = "Où va le café après l’été ?"


@pytest.mark.parametrize(
    ("one", "other"),
    [(CHINESE, f"{CHINESE}吧"), (JAPANESE, f"{JAPANESE}ね"), (FRENCH, unicodedata.normalize("NFD", FRENCH))],
)
def test_near_duplicates_are_seen_in_scripts_without_spaces_and_in_other_forms_of_unicode(one, other):
    assert near_duplicates([one, other, "今天天气怎么样"]) == [(0, 1)]
    assert nearly_in([one], [other]) == {one}
