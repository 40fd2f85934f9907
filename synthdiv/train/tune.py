"""What the `train` stage does: encode the mix, tune over the schedule, validate on own and human answers, save."""

from __future__ import annotations

import itertools
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.mix.mix import read_mix
from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel, load_base, require_4bit_support
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.split import rank
from synthdiv.train.adapter import probe_adapter, save_adapter, with_adapter
from synthdiv.train.checkpoints import CHECKPOINTS
from synthdiv.train.early import Early
from synthdiv.train.encode import encode
from synthdiv.train.fit import fit
from synthdiv.train.held_out import cut, mean_loss
from synthdiv.train.module import Optimizing
from synthdiv.train.rows import Row
from synthdiv.train.schedule import Match, exact, schedule
from synthdiv.train.strategies import Alone, possible, spread, verify
from synthdiv.train.tokens import read_tokens, rendered
from synthdiv.train.train import LossOn, Method, Stop

if TYPE_CHECKING:
    from synthdiv.train.tokens import Pair
    from synthdiv.train.train import Train


def tune(stage: Train, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
    """Build the artifact of a `train` stage; inputs are student, mix, prompts, and tokens of the mix if there are."""
    possible(run)
    student, mix, prompts, *tokens = inputs
    run.close()
    model, tokenizer = load_base(student, *as_frozen(stage, run))
    chat = Chat.for_prompts(tokenizer, prompts)
    trained, held_out = sides(read_mix(mix), stage.validation)
    if not trained:
        raise DataError(f"train.validation={stage.validation} leaves no row of {len(held_out)} to train on")
    known = read_tokens(tokens[0]) if tokens else {}
    rows, counts = encode(stage, trained, pairs_of(known, chat, trained))
    folded = tokens[0].manifest["summary"]["system_folded"] if tokens else chat.folded
    if stage.method is not Method.full:
        model = with_adapter(model, stage.lora, stage.seed)
    optimizing = Optimizing(stage.lr, stage.schedule.value, stage.warmup, stage.weight_decay, stage.clip)
    over = spread(model, optimizing, run, stage.precision.value)
    opened = OpenModel(over.opened.eval(), tokenizer, run.device)
    budget = stage.budget if stage.budget is not None else round(stage.epochs * len(rows))
    stops, by_rows = stage.stop is Stop.early, stage.match is Match.rows
    steps = schedule([row.supervised for row in rows], stage.batch_rows, stage.match, budget, stage.seed, stops)
    present = rows
    if stage.match is Match.supervised_tokens:
        rows, steps = exact(rows, steps, budget)
    own = pairs_of(known, chat, held_out)
    human = {row["id"]: row["response"] for row in read_prompts(prompts, "train")}
    validation = {
        "own": cut(own, stage.max_tokens),
        "human": human_rows(chat, own, [human[row["id"]] for row in held_out], stage.max_tokens),
    }
    fits(stage, [*rows, *validation["own"], *validation["human"]], opened.context)
    before = losses(over, validation, run)
    early = early_of(stage, over, cut(own, stage.max_tokens, stage.loss_on is LossOn.all), run)
    packed = stage.max_tokens if stage.packing else 0
    precision = stage.precision.value
    summary = fit(
        model, rows, steps, optimizing, stage.seed, chat.end, out, run, precision, packed, over, early, student.key
    )
    after = losses(over, validation, run)
    keep(stage, over, opened, rows, out, run, getattr(student.stage, "hub", None))
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
            "trained_parameters": sum(map(math.prod, over.shapes.values())),
            "validation_before": before,
            "validation": after,
        }
    )


def fits(stage: Train, rows: list[Row], context: int) -> None:
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
        name: said | {"repetitions": round(said["rows_seen"] / present[name], 4)}
        for name, said in summary["by_source"].items()
    }
    return {"repetitions": round(summary["rows_seen"] / len(rows), 4), "by_source": each}


def as_frozen(stage: Train, run: Run) -> tuple[str, bool]:
    """Precision in which the student is opened, and whether in 4 bits. What is trained is held in fp32."""
    if stage.method is Method.qlora:
        require_4bit_support(run.device)
    return "fp32" if stage.method is Method.full else stage.precision.value, stage.method is Method.qlora


def pairs_of(known: dict[str, Pair], chat: Chat, rows: list[dict[str, Any]]) -> list[Pair]:
    """Token ids of rows of the mix, `known` or made here."""
    return [known[row["id"]] for row in rows] if known else list(rendered(chat, rows))


def human_rows(chat: Chat, own: list[Pair], answers: list[str | None], longest: int) -> list[Row]:
    """The same prompts with human answers; none if one of them has none."""
    given = [answer for answer in answers if answer is not None]
    if len(given) < len(own):
        return []
    return cut([(prompt, answer) for (prompt, _), answer in zip(own, chat.answers(given), strict=True)], longest)


def losses(over: Alone, validation: dict[str, list[Row]], run: Run) -> dict[str, float | None]:
    """Mean NLL per answer token (nats) on held-out prompts, each text cut at `max_tokens` as in training; None where
    there are no such answers."""
    return {
        name: round(mean_loss(over, rows, run.micro_batch), 5) if rows else None for name, rows in validation.items()
    }


def early_of(stage: Train, over: Alone, held_out: list[Row], run: Run) -> Early | None:
    if stage.stop is Stop.budget:
        return None
    if not held_out:
        raise DataError(f"train.stop=early: train.validation={stage.validation} holds out no row to stop by; raise it")
    return Early(stage.evaluate_every, stage.patience, lambda: mean_loss(over, held_out, run.micro_batch))


def keep(stage: Train, over: Alone, opened: OpenModel, rows: list[Row], out: Path, run: Run, hub: str | None) -> None:
    """Check what was trained and save it, whole, by rank 0."""
    if stage.method is not Method.full:
        probe_adapter(opened, rows[: stage.batch_rows])
    weights = over.weights()
    if run.rank == 0:
        verify((over.trained() if weights is None else weights.items()), over.shapes)
        if stage.method is Method.full:
            over.model.save_pretrained(out / "model", state_dict=weights)
            opened.tokenizer.save_pretrained(out / "model")
        else:
            save_adapter(over.model, out / "adapter", hub, weights)
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    over.close()


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
