"""What the `train` stage does: encode the mix, tune over the schedule, validate on own and human answers, save."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.mix.stage import read_mix
from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel, adapting, load_base
from synthdiv.models.score import answer_log_likelihoods
from synthdiv.prompts.split import rank
from synthdiv.prompts.stage import read_prompts
from synthdiv.train.encode import encode
from synthdiv.train.fit import CHECKPOINTS, fit
from synthdiv.train.module import Optimizing
from synthdiv.train.rows import Row
from synthdiv.train.schedule import schedule
from synthdiv.train.strategies import possible, spread, verify
from synthdiv.train.tokens import read_tokens, rendered
from synthdiv.types import Artifact, DataError, Run

if TYPE_CHECKING:
    from synthdiv.train.stage import Lora, Train

VALIDATION_BATCH = 16384  # tokens; validation is only read, so this is no field


def tune(stage: Train, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
    """Build the artifact of a `train` stage; inputs are student, mix, prompts, and tokens of the mix if there are."""
    possible(run)
    student, mix, prompts, *tokens = inputs
    run.close()
    model, tokenizer = load_base(student, "fp32" if stage.method.value == "full" else stage.precision.value)
    chat = Chat.of(tokenizer, prompts)
    trained, held_out = sides(read_mix(mix), stage.validation)
    if not trained:
        raise DataError(f"train.validation={stage.validation} leaves no row of {len(held_out)} to train on")
    known = read_tokens(tokens[0]) if tokens else {}
    pairs = (known[row["id"]] for row in trained) if tokens else rendered(chat, trained)
    rows, counts = encode(stage, trained, pairs)
    folded = tokens[0].manifest["summary"]["system_folded"] if tokens else chat.folded
    if stage.method.value == "lora":
        model = with_adapter(model, stage.lora, stage.seed)
    optimizing = Optimizing(stage.lr, stage.schedule.value, stage.warmup, stage.weight_decay, stage.clip)
    over = spread(model, optimizing, run, stage.precision.value)
    opened = OpenModel(over.opened.eval(), tokenizer, run.device)
    longest = max(len(row.ids) for row in rows)
    if longest > opened.context:
        raise DataError(
            f"train.max_tokens={stage.max_tokens}: a row has {longest} tokens and the student's context is "
            f"{opened.context}; lower train.max_tokens to that or choose another student"
        )
    human = {row["id"]: row["response"] for row in read_prompts(prompts, "train")}
    budget = stage.budget if stage.budget is not None else round(stage.epochs * len(rows))
    steps = schedule([row.supervised for row in rows], stage.batch_rows, stage.match, budget, stage.seed)
    before = validate(opened, chat, held_out, human, stage.max_tokens)
    packed = stage.max_tokens if stage.packing else 0
    summary = fit(model, rows, steps, optimizing, stage.seed, chat.end, out, run, stage.precision.value, packed, over)
    after = validate(opened, chat, held_out, human, stage.max_tokens)
    if stage.method.value == "lora":
        probe_adapter(opened, rows[: stage.batch_rows])
    weights = over.weights()
    if run.rank == 0:
        verify((over.trained() if weights is None else weights.items()), over.shapes)
        if stage.method.value == "lora":
            save_adapter(model, out / "adapter", getattr(student.stage, "hub", None), weights)
        else:
            model.save_pretrained(out / "model", state_dict=weights)
            tokenizer.save_pretrained(out / "model")
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    over.close()
    return (
        summary
        | counts
        | {
            "budget": budget,
            "train_rows": len(rows),
            "validation_rows": len(held_out),
            "system_folded": folded,
            "sources": dict(Counter(row.source for row in rows)),
            "trained_parameters": sum(map(math.prod, over.shapes.values())),
            "validation_before": before,
            "validation": after,
        }
    )


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


def with_adapter(model: Any, lora: Lora, seed: int) -> Any:
    import peft
    import torch

    kinds = {"Linear": False, "Conv1D": True}  # GPT-2 stores its layers transposed, and PEFT wants to be told
    layers = {
        name.split(".")[-1]: kinds[type(part).__name__]
        for name, part in model.named_modules()
        if type(part).__name__ in kinds and part is not model.get_output_embeddings()
    }
    unknown = [target for target in lora.targets if target not in layers]
    if unknown or not lora.targets:
        raise DataError(
            f"train.lora.targets={lora.targets}: the student has no {', '.join(unknown) or 'adapter then'}; its linear "
            f"layers are {', '.join(sorted(layers))}"
        )
    torch.manual_seed(seed)  # the adapter's random start belongs to train.seed
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a scale: PEFT only divides it by r
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        fan_in_fan_out=any(layers[target] for target in lora.targets),
        task_type="CAUSAL_LM",
    )
    with adapting():
        return peft.get_peft_model(model, config)


def save_adapter(model: Any, folder: Path, hub: str | None, weights: dict[str, Any] | None = None) -> None:
    """As PEFT saves it, less what differs between equal adapters: the order of a set, and where the base lies here."""
    model.save_pretrained(folder, state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)  # an empty form that names the base's path
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"target_modules": sorted(config["target_modules"]), "base_model_name_or_path": hub}
    file.write_text(json.dumps(config, indent=1), encoding="utf-8")


def validate(
    opened: OpenModel, chat: Chat, rows: list[dict[str, Any]], human: dict[str, str | None], longest: int
) -> dict[str, Any]:
    """Mean NLL per token (nats) on held-out prompts: of the arm's own answers, and of human answers. Texts are cut at
    `longest` tokens, as in training."""
    opened.model.eval()
    result: dict[str, Any] = {}
    asked: dict[str, list[str | None]] = {
        "own": [row["response"] for row in rows],
        "human": [human[row["id"]] for row in rows],
    }
    for name, given in asked.items():
        answers = [answer for answer in given if answer is not None]
        if not rows or len(answers) < len(rows):
            result[name] = None
            continue
        asked_ids = chat.prompts([row["prompt"] for row in rows])
        prompts = [ids[: longest - 1] for ids in asked_ids]
        said = zip(prompts, chat.answers(answers), strict=True)
        pairs = [(prompt, ids[: longest - len(prompt)]) for prompt, ids in said]
        values = answer_log_likelihoods(opened, pairs, VALIDATION_BATCH)
        result[name] = round(-sum(float(v.sum()) for v in values) / sum(len(v) for v in values), 5)
    return result


def probe_adapter(opened: OpenModel, rows: list[Row]) -> None:
    """An adapter that changes no logit was not trained or is not active: an error, not a result."""
    import torch

    for row in rows:  # one by one: the logits of a large batch over a large vocabulary do not fit everywhere
        ids = torch.tensor([row.ids], device=opened.device)
        with torch.no_grad():
            tuned = opened.model(input_ids=ids).logits
            with opened.model.disable_adapter():
                base = opened.model(input_ids=ids).logits
        if not torch.equal(tuned, base):
            return
    raise DataError("the adapter changes no logit: it was not trained. Look at train.lr, train.epochs and train.lora")
