"""What the `train` stage does: encode the mix, tune over the schedule, validate on own and human answers, save."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.mix.stage import read_mix
from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel, load_base
from synthdiv.models.score import answer_log_likelihoods
from synthdiv.prompts.stage import read_prompts
from synthdiv.train.fit import CHECKPOINTS, fit
from synthdiv.train.module import Optimizing, Row, tensors
from synthdiv.train.schedule import schedule
from synthdiv.types import Artifact, DataError, Run

if TYPE_CHECKING:
    from synthdiv.train.stage import Lora, Train

VALIDATION_BATCH = 16384  # tokens; validation is only read, so this is no field


def tune(stage: Train, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
    """Build the artifact of a `train` stage; inputs are student, mix, prompts."""
    student, mix, prompts = inputs
    model, tokenizer = load_base(student, "fp32" if stage.method.value == "full" else stage.precision.value)
    chat = Chat(tokenizer, prompts.stage.system, prompts.stage.date)
    trained, held_out = sides(read_mix(mix), stage.validation)
    rows, cut = encode(stage, chat, trained)
    if stage.method.value == "lora":
        model = with_adapter(model, stage.lora, stage.seed)
    opened = OpenModel(model.to(run.device), tokenizer, run.device)
    human = {row["id"]: row["response"] for row in read_prompts(prompts, "train")}
    budget = stage.budget if stage.budget is not None else round(stage.epochs * len(rows))
    steps = schedule([row.supervised for row in rows], stage.batch_rows, stage.match, budget, stage.seed)
    optimizing = Optimizing(stage.lr, stage.schedule.value, stage.warmup, stage.weight_decay, stage.clip)
    before = validate(opened, chat, held_out, human)
    summary = fit(model, rows, steps, optimizing, stage.seed, chat.end, out, run, stage.precision.value)
    after = validate(opened, chat, held_out, human)
    if stage.method.value == "lora":
        probe_adapter(opened, rows[: stage.batch_rows], chat.end)
        model.save_pretrained(out / "adapter", safe_serialization=True)
    else:
        model.save_pretrained(out / "model", safe_serialization=True)
        tokenizer.save_pretrained(out / "model")
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    sources: dict[str, int] = {}
    for row in trained:
        sources[row["source"]] = sources.get(row["source"], 0) + 1
    return summary | {
        "budget": budget,
        "train_rows": len(rows),
        "validation_rows": len(held_out),
        "cut_rows": cut,
        "sources": sources,
        "trained_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "validation_before": before,
        "validation": after,
    }


def sides(mix: list[dict[str, Any]], share: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train and validation rows. Every k-th position is held out: the same prompts in every arm of one size, and as
    stratified as the order."""
    every = round(1 / share) if share else 0
    held = [row for row in mix if every and row["position"] % every == every - 1]
    return [row for row in mix if not every or row["position"] % every != every - 1], held


def encode(stage: Train, chat: Chat, mix: list[dict[str, Any]]) -> tuple[list[Row], int]:
    """Rows of token ids, and how many had to be cut at `max_tokens`. No row without a supervised token passes."""
    rows, cut, lost = [], 0, []
    for item, answer in zip(mix, chat.answers([item["response"] for item in mix]), strict=True):
        prompt = chat.prompt(item["prompt"])
        ids = (prompt + answer)[: stage.max_tokens]
        cut += len(ids) < len(prompt) + len(answer)
        row = Row(tuple(ids), len(prompt) if stage.loss_on.value == "answer" else 0)
        if row.supervised < 1:
            lost.append(item["id"])
        rows.append(row)
    if lost:
        raise DataError(
            f"train.max_tokens={stage.max_tokens} cuts the whole answer away in {len(lost)} rows (first {lost[0]}); raise it"
        )
    return rows, cut


def with_adapter(model: Any, lora: Lora, seed: int) -> Any:
    import peft
    import torch

    torch.manual_seed(seed)  # the adapter's random start belongs to train.seed
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        linear = sorted(
            {name.split(".")[-1] for name, part in model.named_modules() if "Linear" in type(part).__name__}
        )
        linear += sorted(
            {name.split(".")[-1] for name, part in model.named_modules() if type(part).__name__ == "Conv1D"}
        )
        raise DataError(f"train.lora.targets={lora.targets}: the student has {', '.join(linear)}") from error


def validate(opened: OpenModel, chat: Chat, rows: list[dict[str, Any]], human: dict[str, str | None]) -> dict[str, Any]:
    """Mean NLL per token (nats) on held-out prompts: of the arm's own answers, and of human answers."""
    opened.model.eval()
    result: dict[str, Any] = {}
    for name, answers in (
        ("own", [row["response"] for row in rows]),
        ("human", [human[row["id"]] for row in rows]),
    ):
        if not rows or any(answer is None for answer in answers):
            result[name] = None
            continue
        pairs = [(chat.prompt(row["prompt"]), ids) for row, ids in zip(rows, chat.answers(answers), strict=True)]
        values = answer_log_likelihoods(opened, pairs, VALIDATION_BATCH)
        result[name] = round(-sum(float(v.sum()) for v in values) / sum(len(v) for v in values), 5)
    return result


def probe_adapter(opened: OpenModel, rows: list[Row], pad: int) -> None:
    """An adapter that changes no logit was not trained or is not active: an error, not a result."""
    import torch

    batch = tensors(rows, pad, opened.device)
    del batch["labels"]
    with torch.inference_mode():
        tuned = opened.model(**batch).logits
        with opened.model.disable_adapter():
            base = opened.model(**batch).logits
    if not bool((tuned - base)[batch["attention_mask"].bool()].abs().max() > 0):
        raise DataError(
            "the adapter changes no logit: it was not trained. Look at train.lr, train.epochs and train.lora"
        )
