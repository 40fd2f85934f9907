"""Rows are cut or left out and counted; none has nothing to learn, and the budget is that of those that stay."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synthdiv.core.types import DataError
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.models.chat import Chat
from synthdiv.train.recipe import LossOn, Method, Overlong
from synthdiv.train.schedule import Match
from synthdiv.train.tokens import declared, encode, rendered
from synthdiv.train.train import Train
from tests.models.small import build, opened

FIELDS_SHOWN = ("train.overlong", "train.left_out")


@pytest.fixture(scope="module")
def chat(student):
    return Chat(opened(student).tokenizer)


def sizes(chat, rows):
    """Tokens of each row's prompt, and of all of it."""
    asked = [len(chat.prompt(row["prompt"])) for row in rows]
    result = chat.answers([row["response"] for row in rows])
    return asked, [prompt + len(answer) for prompt, answer in zip(asked, result, strict=True)]


@pytest.mark.parametrize("overlong", Overlong)
def test_rows_over_the_limit_are_cut_or_left_out(chat, human, overlong):
    rows = read_mix(human)
    asked, lengths = sizes(chat, rows)
    limit = max(lengths) - 3
    assert max(asked) < limit
    longer = sum(length > limit for length in lengths)
    left_out = longer / 48 if overlong is Overlong.drop else 0.0
    made, counts = encode(Train(max_tokens=limit, overlong=overlong, left_out=left_out), rows, rendered(chat, rows))
    if overlong is Overlong.cut:
        assert counts == {"cut_rows": longer, "dropped_rows": 0, "unanswered_rows": 0}
        assert max(len(row.ids) for row in made) == limit
    else:
        assert counts == {"cut_rows": 0, "dropped_rows": longer, "unanswered_rows": 0}
        assert [len(row.ids) for row in made] == [length for length in lengths if length <= limit]
    assert longer > 0


def test_rows_that_only_this_arm_leaves_out_are_declared_or_refused(chat, human):
    rows = read_mix(human)
    limit = max(sizes(chat, rows)[1]) - 3

    def made(**fields):
        return encode(Train(max_tokens=limit, overlong=Overlong.drop, **fields), rows, rendered(chat, rows))

    with pytest.raises(
        DataError, match=r"leaves out \d+ of 48 rows.*train\.left_out=0\.\d+ report\.unmatched"
    ) as error:
        made()
    assert made(left_out=share_to_declare(error))[1] == made(match=Match.steps, budget=3)[1]


def share_to_declare(error):
    return float(str(error.value).rpartition("left_out=")[2].split()[0])


@given(st.integers(1, 400), st.integers(1, 400))
@example(29, 71)
def test_the_share_that_the_message_names_is_enough(dropped, kept):
    """Even where a product of it is not: 0.29 * 100 is less than 29."""
    with pytest.raises(DataError, match="declare it") as error:
        declared(Train(), dropped, dropped + kept)
    declared(Train(left_out=share_to_declare(error)), dropped, dropped + kept)


@pytest.mark.parametrize("loss_on", LossOn)
def test_a_row_whose_answer_is_cut_away_is_left_out(chat, human, loss_on):
    rows = read_mix(human)
    asked, _ = sizes(chat, rows)
    limit = sorted(asked)[24]
    made, counts = encode(Train(max_tokens=limit, loss_on=loss_on), rows, rendered(chat, rows))
    assert counts["unanswered_rows"] == sum(prompt >= limit for prompt in asked) > 0
    assert len(made) == 48 - counts["unanswered_rows"]
    assert all(row.supervised >= 1 for row in made)
    with pytest.raises(DataError, match=r"train\.max_tokens=2 leaves no row of 48: 0 are longer and of 48 the whole"):
        encode(Train(max_tokens=2, loss_on=loss_on), rows, rendered(chat, rows))


def test_the_budget_is_that_of_the_rows_that_stay(root, prompts, student, human, chat):
    asked, _ = sizes(chat, read_mix(human))
    recipe = Train(method=Method.full, epochs=2, batch_rows=16, lr=1e-2, max_tokens=sorted(asked)[36], validation=0.1)
    summary = build(root, recipe, student, human, prompts).manifest["summary"]
    assert summary["unanswered_rows"] > 0
    assert summary["train_rows"] + summary["unanswered_rows"] + summary["validation_rows"] == 48
    assert summary["budget"] == summary["rows_seen"] == 2 * summary["train_rows"]
    assert summary["repetitions"] == 2
    assert summary["sources"] == {"human": summary["train_rows"]}
    assert summary["by_source"]["human"]["share"] == 1


def test_a_template_that_raises_names_the_row(student, human):
    tokenizer, rows = opened(student).tokenizer, read_mix(human)
    word = rows[5]["prompt"]
    refuse = f"{{% if messages[0]['content'] == {word!r} %}}{{{{ raise_exception('no such role') }}}}{{% endif %}}"
    tokenizer.chat_template = refuse + tokenizer.chat_template
    first = next(row["id"] for row in rows if row["prompt"] == word)
    with pytest.raises(DataError, match=f"cannot render the row {first}: no such role"):
        encode(Train(), rows, rendered(Chat(tokenizer), rows))
    with pytest.raises(DataError, match="cannot render the prompt"):
        Chat(tokenizer).prompt(word)


def test_prompts_together_are_the_prompts_one_by_one(chat, human):
    texts = [row["prompt"] for row in read_mix(human)]
    assert chat.prompts(texts) == [chat.prompt(text) for text in texts]
    assert chat.prompts([]) == []
