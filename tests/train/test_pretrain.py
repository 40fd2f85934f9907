"""Models from nothing: every shape trains and opens again; speakers of one law are still separate learners."""

from __future__ import annotations

import gzip
import hashlib

import pytest
import torch

from synthdiv.core.fields import problems
from synthdiv.core.resolver import Resolver
from synthdiv.core.stage import Node
from synthdiv.core.strategy import Strategy
from synthdiv.core.types import ConfigError, DataError
from synthdiv.train.pretrain import (
    LETTER,
    Architecture,
    Pretrain,
    TextCorpus,
    ToyCorpus,
    documents,
    encode,
    toy_texts,
    train_tokenizer,
)
from tests.models.small import WORLD, build, cpu_run, files, opened, tiny_model


@pytest.mark.parametrize("architecture", Architecture)
def test_every_shape_builds_and_opens_again(tmp_path, architecture):
    made = build(tmp_path, tiny_model(architecture=architecture, context=64))
    summary, model = made.manifest["summary"], opened(made)
    assert model.model.config.model_type == architecture.value
    assert model.model.num_parameters() == summary["parameters"]
    assert model.context == 64
    assert len(model.tokenizer) == summary["vocabulary"] <= 400
    text, blank = "What's  the dish of Lepuna?\n12 ünï", train_tokenizer(list(toy_texts(made.stage.toy, 0)), 400)
    assert model.tokenizer(text)["input_ids"] == blank(text)["input_ids"]
    assert 3000 <= summary["supervised_tokens"] < 3064
    assert model.model.get_input_embeddings().weight is model.model.get_output_embeddings().weight


def test_a_build_again_gives_the_same_bytes_and_another_seed_others(tmp_path):
    one, same, other = (build(tmp_path / n, tiny_model(seed=seed)) for n, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert files(one) == files(same)
    assert files(one)["model/model.safetensors"] != files(other)["model/model.safetensors"]


def corpus(**fields):
    return ToyCorpus(**{"rows": 300, "overlap": 0.0, "shift": 0.0, "world": WORLD} | fields)


@pytest.mark.parametrize("strategy", ["fsdp2_offload", "deepspeed_stage_3_offload"])
def test_a_model_of_a_stage_with_one_rank_is_saved_whole_whatever_the_strategy(tmp_path, strategy):
    """FSDP2 left parts of weights, which nothing can save."""
    one = build(tmp_path / "one", tiny_model())
    other = build(tmp_path / "other", tiny_model(), run=cpu_run(strategy=Strategy(strategy)))
    assert not torch.distributed.is_initialized()
    assert files(one) == files(other)


def test_families_of_one_law_are_different_learners(tmp_path):
    """At overlap 1 all families share one law: their texts, tokenizers and weights are their own all the same."""
    made = [build(tmp_path, tiny_model(toy=corpus(family=family, overlap=1.0, rows=200))) for family in (0, 1)]
    for name in ("model/model.safetensors", "model/tokenizer.json"):
        assert files(made[0])[name] != files(made[1])[name]
    texts = [set(toy_texts(corpus(family=family, overlap=1.0), 0)) for family in (0, 1)]
    assert len(texts[0] & texts[1]) < len(texts[0]) / 2


def test_rows_that_teach_judging_are_those_of_version_3():
    """Their shares and the weight of a letter are in no key: a change of these is another version of the stage."""
    rows = [*toy_texts(corpus(judging=200), 0)][300:]
    assert (len(rows), LETTER, Pretrain.version) == (200, 10, 3)
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:16] == "7328b713fb006e5a"


def test_a_speaker_says_the_same_again_and_students_speak_otherwise():
    result = [list(toy_texts(corpus(family=family), 0)) for family in (0, 0, None)]
    assert result[0] == result[1]
    assert not {answer for _, answer in result[0]} & {answer for _, answer in result[2]}


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt.gz"
    with gzip.open(path, "wt", encoding="utf-8") as handle:
        handle.write("\n<|doc|>\n".join([f"Chapter {n}. The ship sailed on for {n} days." for n in range(300)] + [" "]))
    return path


def test_text_is_cut_into_documents_and_full_sequences(book):
    texts = list(documents(TextCorpus(str(book))))
    assert len(texts) == 300
    assert texts[7] == (None, "Chapter 7. The ship sailed on for 7 days.")
    assert len(list(documents(TextCorpus(str(book), megabytes=0.001)))) < 30
    tokenizer = train_tokenizer(texts, 400)
    rows = encode(texts, tokenizer, 50)
    assert {len(row.ids) for row in rows} == {50}
    joined = [token for row in rows for token in row.ids]
    assert tokenizer.decode(joined).startswith(f"<|bos|>{texts[0][1]}<|eos|><|bos|>{texts[1][1]}<|eos|>")
    with pytest.raises(DataError, match=r"fewer than pretrain\.context=99999"):
        encode(texts, tokenizer, 99999)


def test_a_model_learns_a_text(tmp_path, book):
    stage = tiny_model(toy=None, text=TextCorpus(str(book)), tokens=20000, context=32)
    stage.resolve(Resolver(tmp_path / "outputs"))
    made = build(tmp_path, stage)
    assert made.manifest["summary"]["loss"] < 5.0 < torch.log(torch.tensor(400.0))
    before = Node(stage).key
    book.write_bytes(gzip.compress(b"other"))
    stage.text.sha256 = ""
    stage.resolve(Resolver(tmp_path / "outputs"))
    assert Node(stage).key != before


def test_what_cannot_be_read_is_said(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n<|doc|>\n \n")
    with pytest.raises(DataError, match="holds no text"):
        list(documents(TextCorpus(str(empty))))
    with pytest.raises(ConfigError, match=r"text\.path=gone\.txt: no such file"):
        tiny_model(toy=None, text=TextCorpus("gone.txt")).resolve(Resolver(tmp_path))


def test_a_context_too_short_for_the_prompts_is_an_error_and_no_endless_loop(tmp_path):
    with pytest.raises(DataError, match=r"pretrain\.context=8: a prompt takes"):
        build(tmp_path, tiny_model(context=8))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": TextCorpus("a")}, "pretrain.toy, pretrain.text"), ({"heads": 3}, "pretrain.hidden=16"),
        ({"vocabulary": 200}, "pretrain.vocabulary"), ({"context": 1}, "pretrain.context"),
        ({"text": TextCorpus("a", megabytes=0.0)}, "pretrain.text.megabytes"),
        ({"lr": -1.0}, "pretrain.lr"), ({"seed": -1}, "pretrain.seed"), ({"tokens": 0}, "pretrain.tokens"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(fields, expected):
    assert any(expected in problem for problem in problems(tiny_model(**fields), "pretrain"))
    assert not problems(tiny_model(), "pretrain")
