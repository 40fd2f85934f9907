"""How alike recorded sources answer, through the whole program: on made rows, with the shipped preset."""

from __future__ import annotations

import gzip
import json
import random

import pyarrow.parquet
import pytest
import yaml

from synthdiv.evaluate.suite import read_scores
from synthdiv.measures.similarity import ngram_vectors, source_similarity
from tests.conftest import ROOT, TINY, synthdiv

MODELS = yaml.safe_load((ROOT / "conf" / "generators" / "alpaca_eval.yaml").read_text())["models"]
FAMILIES = {model["name"]: model["facts"]["family"] for model in MODELS}
PROMPTS = 40


def answer(prompt: int, source: str) -> str:
    """Half of the words belong to the prompt and the family of the source, half to the source."""
    rng, family = random.Random(f"{prompt} {source}"), random.Random(f"{prompt} {FAMILIES[source]}")
    common = [f"word{family.randrange(400)}" for _ in range(15)]
    return " ".join([*common, *(f"word{rng.randrange(400)}" for _ in range(15))])


@pytest.fixture(scope="module")
def rows():
    """People answered every other prompt, one model has an empty answer."""
    made = []
    for prompt in range(PROMPTS):
        for source in FAMILIES:
            people = source == "people"
            if people and prompt % 2:
                continue
            facts = {"licence": "CC-BY-NC-4.0(+model terms)", "dataset": "alpaca_eval:koala"}
            if people:
                facts = {"licence": "Apache-2.0", "dataset": "self-instruct-user"}
            text = "" if (prompt, source) == (1, "phi-2") else answer(prompt, source)
            made.append(facts | {
                "id": f"p-{prompt}", "instruction": f"Say {prompt} and {prompt * 37}.", "input": "", "response": text,
                "source": "human" if people else source,
            })  # fmt: skip
    return made


@pytest.fixture(scope="module")
def finished(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alike")
    with gzip.open(folder / "rows.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    paths = [f"{name}=rows.jsonl.gz" for name in ("prompts.table.path", "generators.path")]
    fields = ["prompts.test=36", "evaluate.suites.0.encoder=null", "evaluate.suites.0.length=100"]
    synthdiv("-m", "experiment=sources_alike", *paths, *fields, cwd=folder)
    return folder


def test_it_needs_no_student_and_finds_families(finished):
    artifacts = finished / "outputs" / "artifacts"
    assert {path.name for path in artifacts.iterdir()} == {"prompts", "generate", "sources_alike"}
    (folder,) = (artifacts / "sources_alike").iterdir()
    scores = {score.name: score for score in read_scores(folder)}
    assert scores["ngrams/alike/vicuna-7b-v1.5+vicuna-13b-v1.5"].value > 0.3
    assert abs(scores["ngrams/alike/gemma-7b-it+vicuna-7b-v1.5"].value) < 0.1
    assert scores["ngrams/voices/four_of_7b"].value == pytest.approx(4, abs=0.3), "of four families"
    assert scores["ngrams/voices/gpt"].value < 2.5, "of one"
    assert scores["ngrams/voices"].low < scores["ngrams/voices"].value < scores["ngrams/voices"].high
    assert "prompts lack the vector of a source" in scores["ngrams/voices"].note
    rows = pyarrow.parquet.read_table(folder / "items.parquet").to_pylist()
    assert len(rows) == 36 * len(FAMILIES)
    assert {row["value"] for row in rows} == {0, 30}
    report = synthdiv("report", "sources_alike", cwd=finished).stdout
    assert "ngrams/voices" in (finished / report.split()[-1]).read_text()


def test_scores_are_the_measures(rows, finished):
    """Of two sources, from the answers to the prompts that were asked."""
    (folder,) = (finished / "outputs" / "artifacts" / "sources_alike").iterdir()
    asked = list(
        dict.fromkeys(row["prompt"] for row in pyarrow.parquet.read_table(folder / "items.parquet").to_pylist())
    )
    texts = {
        name: [next(row["response"] for row in rows if (row["id"], row["source"]) == (key, name)) for key in asked]
        for name in ("claude-1", "claude-2.1")
    }
    wanted = {score.name: score for score in source_similarity(ngram_vectors(texts))}
    scores = {score.name: score for score in read_scores(folder)}
    for name, ours in (("alike", "alike/claude"), ("voices", "voices/claude"), ("voices_vendi", "voices_vendi/claude")):
        assert (scores[f"ngrams/{ours}"].value, scores[f"ngrams/{ours}"].low) == (wanted[name].value, wanted[name].low)


def test_how_alike_sources_are_is_an_axis_of_the_page(tmp_path):
    """Of sources that speak as people do and of those that do not."""
    suites = "evaluate.suites=[{suite: truth, prompts: 2}, {suite: sources_alike}]"
    words = [*(word for word in TINY if "suites" not in word and "models" not in word), "generators=toy", "mix=multi"]
    synthdiv("-m", "sweep=axis", "student=toy_small", "generators.overlap=0,1", *words, suites, cwd=tmp_path)
    synthdiv("report", "axis", cwd=tmp_path)
    page = (tmp_path / "outputs" / "reports" / "axis" / "index.html").read_text()
    assert "truth/js against ngrams/alike" in page


@pytest.mark.parametrize("text", ["gpt=gpt-4", "no_names=", "x=claude-1,nobody", "claude-1,claude-2.1"])
def test_a_set_without_two_known_sources_is_refused(finished, text):
    words = [
        "plan",
        "-m",
        "experiment=sources_alike",
        "prompts.table.path=rows.jsonl.gz",
        "generators.path=rows.jsonl.gz",
    ]
    sets = f"evaluate.suites.0.sets=['{text}']"
    done = synthdiv(*words, "prompts.test=36", "evaluate.suites.0.encoder=null", sets, cwd=finished, code=2)
    assert f"sets of sources_alike: '{text}' needs NAME=SOURCE,SOURCE,… with two or more of" in done.stderr
