"""What the `train` stage does: encode the mix, tune over the schedule, validate on own and human answers, save."""

from __future__ import annotations

import itertools
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.models.chat import Chat
from synthdiv.models.load import context_of, load_whole, require_4bit_support
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.split import rank
from synthdiv.train.adapter import freeze_other_towers, save_adapter, verify, with_adapter
from synthdiv.train.checkpoints import CHECKPOINTS
from synthdiv.train.early import Early
from synthdiv.train.fit import fit
from synthdiv.train.module import Tuning
from synthdiv.train.recipe import LossOn, Method, Optimizing, Recipe, StopRule, Training
from synthdiv.train.rows import Row
from synthdiv.train.schedule import Match, exact, schedule
from synthdiv.train.strategies import check_devices
from synthdiv.train.tokens import cut, encode, read_tokens, rendered


def tune(stage: Recipe, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
    """Build the artifact of a `train` stage."""
    check_devices(run)
    student, mix, prompts, tokens = (inputs[name] for name in ("student", "mix", "prompts", "tokens"))
    run.close()
    if stage.method is Method.qlora:
        require_4bit_support(run.device)
    precision = "fp32" if stage.method is Method.full else stage.precision.value  # what is trained is held in fp32
    model, tokenizer = load_whole(student, precision, packed=stage.method is Method.qlora)
    chat = Chat.for_prompts(tokenizer, prompts)
    mixed = read_mix(mix)
    # by position: ids can repeat over rounds
    known = {row["position"]: pair for row, pair in zip(mixed, read_tokens(tokens), strict=True)}
    trained, held_out = sides(mixed, stage.validation)
    if not trained:
        raise DataError(f"train.validation={stage.validation} leaves no row of {len(held_out)} to train on")
    present, counts = encode(stage, trained, [known[row["position"]] for row in trained])
    rows, steps, budget = scheduled(stage, present)
    validation_pairs = [known[row["position"]] for row in held_out]
    human = {row["id"]: row["response"] for row in read_prompts(prompts, "train")}
    validation = {
        "own": cut(validation_pairs, stage.max_tokens),
        "human": human_rows(chat, held_out, human, stage.max_tokens),
    }
    check_context(stage, [*rows, *validation["own"], *validation["human"]], context_of(model.config))
    if stage.method is Method.full:
        freeze_other_towers(model)
    else:
        model = with_adapter(model, stage.lora, stage.seed)
    frozen = untrained(model) if stage.method is Method.full and run.rank == 0 else {}
    optimizing = Optimizing(stage.lr, stage.schedule.value, stage.warmup, stage.weight_decay, stage.clip)
    training = Training(
        model, rows, steps, optimizing, stage.seed, chat.end, out, run, precision=stage.precision.value,
        packed=stage.max_tokens if stage.packing else 0, present=len(present), student=student.key,
        early=early_of(stage, cut(validation_pairs, stage.max_tokens, stage.loss_on is LossOn.all)),
        validation=validation,
        save=lambda tuning: save_trained(tuning, stage, tokenizer, out, frozen, getattr(student.stage, "hub", None)),
    )  # fmt: skip
    trained_parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    summary = fit(training) | counts
    if run.rank == 0:
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    stops, left_out = stage.stop is StopRule.early, counts["dropped_rows"] and stage.match is Match.rows
    return summary | {
        "budget": budget,
        "unmatched": "stops early" if stops else "leaves rows out" if left_out else "",
        "train_rows": len(present),
        "validation_rows": len(held_out),
        "system_folded": tokens.manifest["summary"]["system_folded"],
        "sources": dict(Counter(row.source for row in present)),
        "trained_parameters": trained_parameters,
    }


def scheduled(stage: Recipe, rows: list[Row]) -> tuple[list[Row], list[list[int]], int]:
    """Rows, with a cut copy of the one that an exact budget of tokens ends in; their numbers by step; the budget."""
    budget = stage.budget if stage.budget is not None else max(1, round(stage.epochs * len(rows)))
    supervised, stops = [row.supervised for row in rows], stage.stop is StopRule.early
    steps = schedule(supervised, stage.batch_rows, stage.match, budget, stage.seed, stops)
    if stage.match is Match.supervised_tokens:
        rows, steps = exact(rows, steps, budget)
    return rows, steps, budget


def check_context(stage: Recipe, rows: list[Row], context: int) -> None:
    longest = max(len(row.ids) for row in rows)
    if longest > context:
        raise DataError(
            f"train.max_tokens={stage.max_tokens}: a row has {longest} tokens and the student's context is {context}; "
            "lower train.max_tokens to that or choose another student"
        )


def human_rows(chat: Chat, rows: list[dict[str, Any]], answers: dict[str, str | None], longest: int) -> list[Row]:
    """These prompts with human answers, which `answers` has by id; none if one of them has none."""
    if any(answers.get(row["id"]) is None for row in rows):
        return []
    return cut(rendered(chat, [row | {"response": answers[row["id"]]} for row in rows]), longest)


def early_of(stage: Recipe, held_out: list[Row]) -> Early | None:
    if stage.stop is StopRule.budget:
        return None
    if not held_out:
        raise DataError(f"train.stop=early: train.validation={stage.validation} holds out no row to stop by; raise it")
    return Early(stage.evaluate_every, stage.patience, lambda tuning: tuning.mean_loss(held_out))


def untrained(model: Any) -> dict[str, Any]:
    """Copies of the weights that stay as they are, before a strategy cuts them or changes their format."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if not value.requires_grad}


def save_trained(
    tuning: Tuning, stage: Recipe, tokenizer: Any, out: Path, frozen: dict[str, Any], hub: str | None
) -> None:
    """Check what was trained and save it, whole, by rank 0; a model with its `frozen` weights."""
    weights = tuning.strategy.weights()
    if not tuning.strategy.is_global_zero:
        return
    verify(tuning.trained() if weights is None else weights.items(), tuning.shapes)
    folder = out / ("model" if stage.method is Method.full else "adapter")
    if stage.method is Method.full:
        tuning.model.save_pretrained(folder, state_dict=weights and weights | frozen)
    else:
        save_adapter(tuning.model, folder, hub, weights)
    tokenizer.save_pretrained(folder)


def sides(mix: list[dict[str, Any]], share: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train and validation rows: one position of every 1 / share is held out, the same in every arm of one size.

    Its place among them is by chance. At an even distance it would keep step with the deal of the shards: with four
    sources and a share of 0.05 every held-out row would be one source's, whose part of training would shrink.
    """
    ends = [int((block + 1) / share + 1e-9) for block in range(math.ceil(len(mix) * share))] if share else []
    held = {
        first + rank(0, "validation", block) % (end - first)
        for block, (first, end) in enumerate(itertools.pairwise([0, *ends]))
    }
    return [row for row in mix if row["position"] not in held], [row for row in mix if row["position"] in held]
