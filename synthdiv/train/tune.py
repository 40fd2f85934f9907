"""What the `train` stage does: encode the mix, tune over the schedule, validate on own and human answers, save."""

from __future__ import annotations

import itertools
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.mix.mix import read_mix
from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel, load_base, require_4bit_support
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.split import rank
from synthdiv.train.adapter import probe_adapter, save_adapter, verify, with_adapter
from synthdiv.train.checkpoints import CHECKPOINTS
from synthdiv.train.early import Early
from synthdiv.train.encode import cut, encode
from synthdiv.train.fit import fit
from synthdiv.train.recipe import LossOn, Method, Optimizing, StopRule, Training
from synthdiv.train.rows import Row
from synthdiv.train.schedule import Match, exact, schedule
from synthdiv.train.strategies import check_devices
from synthdiv.train.tokens import read_tokens

if TYPE_CHECKING:
    from synthdiv.train.module import Tuning
    from synthdiv.train.recipe import Recipe
    from synthdiv.train.tokens import Pair


def tune(stage: Recipe, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
    """Build the artifact of a `train` stage."""
    check_devices(run)
    student, mix, prompts, tokens = (inputs[name] for name in ("student", "mix", "prompts", "tokens"))
    run.close()
    model, tokenizer = load_base(student, *as_frozen(stage, run))
    chat = Chat.for_prompts(tokenizer, prompts)
    trained, held_out = sides(read_mix(mix), stage.validation)
    if not trained:
        raise DataError(f"train.validation={stage.validation} leaves no row of {len(held_out)} to train on")
    known = read_tokens(tokens)
    rows, counts = encode(stage, trained, [known[row["id"]] for row in trained])
    folded = tokens.manifest["summary"]["system_folded"]
    if stage.method is not Method.full:
        model = with_adapter(model, stage.lora, stage.seed)
    budget = stage.budget if stage.budget is not None else round(stage.epochs * len(rows))
    stops, by_rows = stage.stop is StopRule.early, stage.match is Match.rows
    steps = schedule([row.supervised for row in rows], stage.batch_rows, stage.match, budget, stage.seed, stops)
    present = rows
    if stage.match is Match.supervised_tokens:
        rows, steps = exact(rows, steps, budget)
    own = [known[row["id"]] for row in held_out]
    human = {row["id"]: row["response"] for row in read_prompts(prompts, "train")}
    validation = {
        "own": cut(own, stage.max_tokens),
        "human": human_rows(chat, own, [human[row["id"]] for row in held_out], stage.max_tokens),
    }
    check_context(stage, [*rows, *validation["own"], *validation["human"]], OpenModel(model, tokenizer, "cpu").context)
    training = Training(
        model,
        rows,
        steps,
        Optimizing(stage.lr, stage.schedule.value, stage.warmup, stage.weight_decay, stage.clip),
        seed=stage.seed,
        pad=chat.end,
        out=out,
        run=run,
        precision=stage.precision.value,
        packed=stage.max_tokens if stage.packing else 0,
        student=student.key,
        early=early_of(stage, cut(own, stage.max_tokens, stage.loss_on is LossOn.all)),
        validation=validation,
        save=lambda tuning: save_trained(tuning, stage, rows, tokenizer, out, getattr(student.stage, "hub", None)),
    )
    trained_parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    summary = fit(training)
    if run.rank == 0:
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return (
        summary
        | counts
        | repetitions(summary, present)
        | {
            "budget": budget,
            "unmatched": "stops early" if stops else "leaves rows out" if counts["dropped_rows"] and by_rows else "",
            "train_rows": len(present),
            "validation_rows": len(held_out),
            "system_folded": folded,
            "sources": dict(Counter(row.source for row in present)),
            "trained_parameters": trained_parameters,
        }
    )


def check_context(stage: Recipe, rows: list[Row], context: int) -> None:
    longest = max(len(row.ids) for row in rows)
    if longest > context:
        raise DataError(
            f"train.max_tokens={stage.max_tokens}: a row has {longest} tokens and the student's context is {context}; "
            "lower train.max_tokens to that or choose another student"
        )


def repetitions(summary: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """How often a row was seen on average, of each source too."""
    present = Counter(row.source for row in rows)
    each = {
        name: totals | {"repetitions": round(totals["rows_seen"] / present[name], 4)}
        for name, totals in summary["by_source"].items()
    }
    return {"repetitions": round(summary["rows_seen"] / len(rows), 4), "by_source": each}


def as_frozen(stage: Recipe, run: Run) -> tuple[str, bool]:
    """Precision in which the student is opened, and whether in 4 bits. What is trained is held in fp32."""
    if stage.method is Method.qlora:
        require_4bit_support(run.device)
    return "fp32" if stage.method is Method.full else stage.precision.value, stage.method is Method.qlora


def human_rows(chat: Chat, own: list[Pair], answers: list[str | None], longest: int) -> list[Row]:
    """The same prompts with human answers; none if one of them has none."""
    given = [answer for answer in answers if answer is not None]
    if len(given) < len(own):
        return []
    return cut([(prompt, answer) for (prompt, _), answer in zip(own, chat.answers(given), strict=True)], longest)


def early_of(stage: Recipe, held_out: list[Row]) -> Early | None:
    if stage.stop is StopRule.budget:
        return None
    if not held_out:
        raise DataError(f"train.stop=early: train.validation={stage.validation} holds out no row to stop by; raise it")
    return Early(stage.evaluate_every, stage.patience, lambda tuning: tuning.mean_loss(held_out))


def save_trained(tuning: Tuning, stage: Recipe, rows: list[Row], tokenizer: Any, out: Path, hub: str | None) -> None:
    """Check what was trained and save it, whole, by rank 0."""
    model, spread = tuning.model, tuning.spread
    if stage.method is not Method.full:
        probe_adapter(model, rows[: stage.batch_rows], spread.root_device, spread.call)
    weights = spread.weights()
    if not spread.is_global_zero:
        return
    verify(tuning.trained() if weights is None else weights.items(), tuning.shapes)
    if stage.method is Method.full:
        model.save_pretrained(out / "model", state_dict=weights)
        tokenizer.save_pretrained(out / "model")
    else:
        save_adapter(model, out / "adapter", hub, weights)


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
