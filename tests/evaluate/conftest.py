"""A toy study of one student, vanilla and tuned, with everything that its suites take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from synthdiv.core.types import Artifact
from synthdiv.evaluate.likelihood import Likelihood, Target
from synthdiv.generate.generate import Generate, Split
from synthdiv.generate.spec import Sampling
from synthdiv.mix.mix import Mix
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.train.pretrain import TEMPLATE
from synthdiv.train.recipe import Method
from synthdiv.train.train import Train
from tests.models.small import build, tiny_model, toy_prompts

LEAD = "<think>\n\n</think>\n\n"  # as Qwen3 writes before an answer


@pytest.fixture(scope="session")
def arms(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluated")
    prompts = build(root, toy_prompts())
    student = build(root, tiny_model(tokens=12000))
    mix = build(root, Mix(48, real_share=1.0, train_rows=48, shard_rows=4), prompts)
    tuned = build(root, Train(method=Method.full, epochs=3, batch_rows=16, lr=1e-2), student, mix, prompts)

    def arm(model):
        answer = Generate("student", sampling=Sampling(1.0, 1.0, 24), split=Split.test, rows=60, samples=3, subset=6)
        answers = build(root, answer, prompts, model)
        return SimpleNamespace(
            model=model,
            answers=answers,
            own=build(root, Likelihood(Target.own), prompts, student, answers),
            human=build(root, Likelihood(Target.human), prompts, model),
            support=build(root, Likelihood(Target.support, limit=3), prompts, model),
        )

    return SimpleNamespace(root=root, prompts=prompts, vanilla=arm(student), tuned=arm(tuned))


def student_with_lead(arms):
    """The vanilla student with a template that writes LEAD."""
    folder = arms.vanilla.model.path / "model"
    template = TEMPLATE.replace(
        "message['content']", f"({LEAD!r} if message['role'] == 'assistant' else '') + message['content']"
    )
    return Artifact(Checkpoint(str(folder), chat_template=template), "0", folder)
