"""For judges: probabilities of the options of a rubric, from the raw logits of a model; one answer is the most likely
option, and its line of `requests.jsonl` has the probability of each and their sum, the `mass`.

Needs: `checkpoint`, `pretrain` or `gguf`.

Tested on: CPU.
"""

from __future__ import annotations

from synthdiv.generate.answer import ROWS, Answer, Answers, Shard
from synthdiv.generate.hf import failed_answers, keep_whole_batches
from synthdiv.models.chat import Chat
from synthdiv.models.options import option_ids, option_probabilities
from synthdiv.models.score import batches


def answers(shard: Shard) -> Answers:
    """Yield the verdicts of one batch at a time; a resumed shard keeps complete batches, as that of `hf` does."""
    prompts, stage = shard.inputs["prompts"], shard.stage
    if not shard.requests:
        return
    options: list[str] = prompts.stage.rubric.options
    opened = shard.run.model(shard.inputs["model"], stage.precision.value)
    chat, failed = Chat.for_prompts(opened.tokenizer, prompts, opened.ends), dict[str, str]()
    lead, rest = option_ids(chat, shard.requests[0].prompt, options)
    longest, requests, ids = max(map(len, rest)), [], []
    alike = f"the tokenizer writes two of {', '.join(options)} alike" * (len({*map(tuple, rest)}) < len(rest))
    for request in shard.requests:
        tokens = chat.prompt(request.prompt) + lead
        long = f"{len(tokens)} tokens do not fit the model's context of {opened.context}"
        if alike or len(tokens) + longest > opened.context:  # a model too small to judge has no verdict
            failed[request.prompt] = alike or long
            continue
        requests.append(request)
        ids.append(tokens)
    shard.facts["system_folded"] = len(requests) if chat.folded else 0
    sizes = [len(batch) for batch in batches([len(tokens) for tokens in ids], stage.batch_tokens)]
    complete_batches = keep_whole_batches(shard.out / ROWS, sizes)
    shard.resumed_rows = sum(sizes[:complete_batches])
    for batch in option_probabilities(opened, ids, rest, stage.batch_tokens, complete_batches):
        if shard.stopping:
            return
        yield [(requests[at], verdict(options, [float(each) for each in p], len(ids[at]))) for at, p in batch]
    if failed:
        yield failed_answers(shard, failed)


def verdict(options: list[str], p: list[float], tokens: int) -> Answer:
    """The most likely option; with equal ones the first."""
    best = options[p.index(max(p))]
    return Answer(best, "stop", tokens, 1, {"options": dict(zip(options, p, strict=True)), "mass": sum(p)})
