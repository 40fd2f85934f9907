"""The toy world's truth about a student, in closed form: every answer the law allows is scored under the student."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact, Run
from synthdiv.evaluate.likelihood import read_likelihood, toy_prompt
from synthdiv.evaluate.suite import item, write_suite
from synthdiv.generate.generate import read_samples
from synthdiv.measures.toy_truth import dialect_scores, truth_score, truth_scores, truth_values
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.toy import Law


@dataclass
class Truth(Stage):
    """Inputs: prompts, the likelihood of the law's support under the student, the student's answers at temperature 1
    and top-p 1, and unless `vanilla` the support's likelihood under the untouched student."""

    name, version = "truth", 2

    vanilla: bool = False

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        import numpy as np

        prompts, support, answers, *untouched = inputs
        law = Law(prompts.stage.toy.world)
        rows = {row["id"]: toy_prompt(row) for row in read_prompts(prompts, "test")}
        log_q = by_prompt(support)
        ids = list(log_q)
        p = [law.support(rows[key])[1] for key in ids]
        lengths = [np.array([len(text) for text in law.support(rows[key])[0]]) for key in ids]
        q = [log_q[key] for key in ids]
        scores = truth_scores(p, q, lengths)
        values = truth_values(p, q, lengths)
        if untouched:
            base = by_prompt(untouched[0])
            before = truth_values(p, [base[key] for key in ids], lengths)["truth/excess_nll"]
            gap = values["truth/excess_nll"] - before
            scores.append(truth_score("truth/excess_nll-vanilla", gap, "nats/answer", False))
        shares: dict[str, list[Any]] = defaultdict(list)
        for sample in read_samples(answers.path):
            shares[sample.id].append(law.posterior(rows[sample.id], sample.response))
        scores += dialect_scores([np.stack(given) for given in shares.values()], law.dialects)
        items = [
            item(key, name, value) for name, found in values.items() for key, value in zip(ids, found, strict=True)
        ]
        write_suite(out, scores, items)
        return {"prompts": len(ids), "answers": sum(map(len, shares.values()))}


def by_prompt(artifact: Artifact) -> dict[str, Any]:
    """Log-likelihoods (nats) of the support of each prompt, in the order of the support."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in read_likelihood(artifact):
        found[row["id"]].append(-row["nll"])
    return dict(found)
