"""The toy world's truth about a student, in closed form: every answer the law allows is scored under the student."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import Artifact, Run
from synthdiv.evaluate.likelihood import Likelihood, Target, read_likelihood
from synthdiv.evaluate.suite import EvaluatedStudent, Suite, item, write_suite
from synthdiv.generate.generate import read_samples
from synthdiv.measures.toy_truth import MEASURES, dialect_scores, truth_score, truth_values
from synthdiv.prompts.prompt_set import read_prompts, toy_prompt
from synthdiv.prompts.toy import Law

COMPARED = ("truth/js", "truth/excess_nll", "truth/excess_nll_words")  # with the vanilla student


@dataclass
class TruthSuite(Suite):
    """The exact distance to the human law. It needs toy prompts and a decoding that is plain: temperature 1, no cut."""

    headlines = ("truth/js", "truth/excess_nll_words", "truth/coverage")
    quality = ("truth/js",)
    reading = (
        "With the toy world's defaults the ordering human < multi < single nearly follows from its construction. In "
        "the null world (`generators.overlap=1`) all families share one distribution, so differences there come only "
        "from training, the selection of singles and chance: compare each difference with the one there."
    )

    prompts: int = setting(16, least=1)
    """How many test prompts are enumerated whole: every answer that the law allows is scored."""

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        decodings = {each.name: each.sampling for each in arm.settings.respond.decodings}
        plain = next((name for name, how in decodings.items() if how.plain), None)
        if not getattr(arm.prompts.stage, "toy", None) or not plain:
            return None
        inputs = {"prompts": arm.prompts, "support": self.support(arm), "answers": arm.responses[plain]}
        if vanilla:
            inputs["vanilla/support"] = self.support(vanilla)
        return Node(Truth(vanilla is None), inputs)

    def support(self, arm: EvaluatedStudent) -> Node:
        """The likelihood of the law's support under the model of an arm."""
        stage = Likelihood(Target.support, self.prompts, arm.settings.precision, arm.settings.batch_tokens)
        return Node(stage, {"prompts": arm.prompts, "model": arm.model})


@dataclass
class Truth(Stage):
    """Inputs: `prompts`; `support`, the likelihood of the law's support under the student; `answers`, the student's at
    temperature 1 and top-p 1; and unless `vanilla` the support's likelihood under the vanilla student."""

    name, version = "truth", 3

    vanilla: bool = False
    """This is the vanilla student itself."""

    def input_names(self) -> tuple[str, ...]:
        return ("prompts", "support", "answers", *([] if self.vanilla else ["vanilla/support"]))

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        prompts, support, answers = inputs["prompts"], inputs["support"], inputs["answers"]
        law = Law(prompts.stage.toy.world)
        rows = {row["id"]: toy_prompt(row) for row in read_prompts(prompts, "test")}

        def values(artifact: Artifact) -> dict[str, dict[str, float]]:
            """Every measure of each prompt, by its id."""
            support: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for row in read_likelihood(artifact):
                support[row["id"]].append((-row["nll"], row["value_nll"]))
            actual = {}
            for key, pairs in support.items():
                log_q, value_nll = np.array(pairs).T
                p, law_nll = law.support(rows[key])[1], law.value_nll(rows[key].category)
                actual[key] = truth_values(p, log_q, law_nll, value_nll)
            return actual

        actual = values(support)
        scores = [truth_score(name, [row[name] for row in actual.values()]) for name in MEASURES]
        if not self.vanilla:
            before = values(inputs["vanilla/support"])
            gaps = {name: [row[name] - before[key][name] for key, row in actual.items()] for name in COMPARED}
            scores += [truth_score(f"{name}-vanilla", gap) for name, gap in gaps.items()]
        posteriors: dict[str, list[Any]] = defaultdict(list)
        for sample in read_samples(answers.path):
            posteriors[sample.id].append(law.posterior(rows[sample.id], sample.response))
        scores += dialect_scores([np.stack(each) for each in posteriors.values()], law.dialects)
        items = [item(key, name, value) for name in MEASURES for key, row in actual.items() for value in [row[name]]]
        write_suite(out, scores, items, TruthSuite)
        return {"prompts": len(actual), "answers": sum(map(len, posteriors.values()))}
