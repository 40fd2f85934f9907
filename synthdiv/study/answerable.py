"""Whether every prompt can be answered: by the file of a recorded source, within the context of a local model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from synthdiv.core.stage import Node, Stage, canonical_fields, digest
from synthdiv.generate.generate import Generate, Split
from synthdiv.generate.spec import LongPrompt
from synthdiv.mix.mix import Mix, failure
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.weights import context_length
from synthdiv.prompts.prompt_set import Prompts
from synthdiv.prompts.questions import WholeTable
from synthdiv.train.pretrain import Pretrain
from synthdiv.train.train import Train

Row = dict[str, Any]


def unanswerable(nodes: Iterable[Node]) -> list[str]:
    """Problems of the prompts that sources cannot answer; of those of all mixes one, with the override for all."""
    prompts, failed = PromptSets(), defaultdict[str, dict[str, None]](dict)
    owned, left_out, problems = defaultdict[str, set[int]](set), set[str](), []
    for node in nodes:
        stage = node.stage
        if isinstance(stage, Mix):
            left_out |= {*stage.leave_out}
            shards = {name.rpartition("/")[0]: inner for name, inner in node.inputs.items() if "/" in name}
            for name, shard in shards.items():
                unfit, model = prompts.unanswered_by(shard), shard.inputs.get("model")
                rows = zip(stage.positions(), stage.owners(), strict=True) if unfit else ()
                owned[name] |= {position for position, source in rows if source == name}
                bad = [row for row in unfit if row["position"] in owned[name]]
                if bad and model and isinstance(model.stage, Train):
                    problems.append(too_long(shard, unfit))
                    continue
                failed[name] |= dict.fromkeys(row["id"] for row in bad if row["id"] not in stage.leave_out)
        elif not isinstance(stage, Generate) or stage.split is Split.train or stage.recorded:
            continue  # of recorded answers outside of a mix some may be missing
        elif bad := prompts.unanswered_by(node):
            names = ", ".join(row["id"] for row in bad[:5])
            problems.append(
                f"{stage.source}: {len(bad)} of {stage.rows} {stage.split.value} prompts ({names}) do not fit into the "
                f"model's context together with {stage.sampling.max_new_tokens} new tokens; lower "
                "sampling.max_new_tokens, leave these prompts out of the set, or set sampling.overlong=truncate"
            )
    if missing := {name: list(ids) for name, ids in failed.items() if ids}:
        problems.append(failure(missing, sorted(left_out), [name for name, places in owned.items() for _ in places]))
    return list(dict.fromkeys(problems))


class PromptSets:
    """Rows of prompt sets, read once. Splitting compares all prompts: it is done only if one cannot be answered."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {}
        self.known: dict[str, list[Row]] = {}

    def unanswered_by(self, node: Node) -> list[Row]:
        """The rows of the split of a `generate` node that its source cannot answer, in their order."""
        stage, prompts = node.stage, node.inputs["prompts"]
        assert isinstance(stage, Generate)
        if not isinstance(prompts.stage, Prompts | WholeTable):  # judge prompts, whose texts do not exist yet
            return []
        if not stage.recorded and "model" not in node.inputs:  # a backend that can answer any prompt
            return []
        model = canonical_fields(stage.recorded) if stage.recorded else node.inputs["model"].key
        key = digest([prompts.key, stage.split.value, model, stage.samples, canonical_fields(stage.sampling)])
        if key not in self.known:
            fails, bad = unable(stage, node), list[Row]()
            if fails:
                rows = self.rows.get(prompts.key) or self.rows.setdefault(prompts.key, prompts.stage.records())
                if any(map(fails, rows)) and "split" not in rows[0]:
                    prompts.stage.split(rows)
                bad = [row for row in rows if row.get("split") == stage.split.value and fails(row)]
            self.known[key] = bad
        return self.known[key]


def unable(stage: Generate, node: Node) -> Callable[[Row], bool] | None:
    """Whether a source cannot answer a row; None where nothing is known of it, or where long prompts are cut."""
    if recorded := stage.recorded:
        answers = recorded.answers(f"{stage.source}: recorded", stage.samples)
        return lambda row: recorded.key(row["id"], row["prompt"]) not in answers
    model = base_of(node)
    room = context_of(model) - stage.sampling.max_new_tokens
    if isinstance(model, Pretrain) and room < 1:  # it has no tokenizer yet
        return lambda row: True
    folder = model.locate() if isinstance(model, Checkpoint) else None
    if not folder or stage.sampling.overlong is LongPrompt.truncate or not (folder / "tokenizer.json").is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")

    def long(row: Row) -> bool:
        """A prompt has at most as many tokens as bytes, and its chat template, which is not known here, adds some."""
        text = row["prompt"]
        return len(text.encode()) > room and len(tokenizer.encode(text, add_special_tokens=False).ids) > room

    return long


def too_long(node: Node, rows: list[Row]) -> str:
    """The message that students of rounds cannot answer these train prompts."""
    longest, context = node.stage.sampling.max_new_tokens, context_of(base_of(node))  # type: ignore[attr-defined]
    return (
        f"rounds.sampling.max_new_tokens={longest}: {len(rows)} train prompts ({rows[0]['id']}, …) and so many new "
        f"tokens do not fit into the context of the students, {context} tokens; set rounds.sampling.max_new_tokens="
        f"{max(1, context // 4)}, or rounds.sampling.overlong=truncate"
    )


def base_of(node: Node) -> Stage:
    """The model that answers; of a student that from which its training started."""
    model = node.inputs["model"]
    while isinstance(model.stage, Train):
        model = model.inputs["student"]
    return model.stage


def context_of(model: Stage) -> int:
    """Tokens of prompt and answer together; a number without effect where it is not known."""
    folder = model.locate() if isinstance(model, Checkpoint) else None
    length = model.context if isinstance(model, Pretrain) else context_length(folder) if folder else None
    return length or 2**30
