"""Verdicts of the backend `logits` against one call of transformers' `generate` for each item, on the same judge
prompts and model; exits 1 where it falls short.

    python benchmarks/judge.py

peer     `generate` of one token for each item, and the probabilities of A and B in its logits
ours     the stage `Generate`, from the judge prompts to the verdicts on disk: batches by length, a common prefix once

The items are S1's: 100 prompts, all ten pairs of five authors, both orders. Texts are the first words of real answers
where these are at hand. Both sides work in this process with one thread, and processor time counts.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import material

ROWS, AUTHORS, WORDS, TURNS, THREADS, BATCH_TOKENS = 100, 5, 20, 2, 1, 4096
FASTER, APART = 3.0, 1e-4
RUBRIC = Path(__file__).resolve().parents[1] / "conf" / "judge" / "rubric" / "preference.yaml"


def items(folder: Path) -> Any:
    """The judge prompts and a Llama of 0.4 million random weights below `folder`, as artifacts would hold them."""
    import pyarrow
    import pyarrow.parquet
    import torch
    import transformers
    import yaml

    from synthdiv.core.types import Artifact
    from synthdiv.evaluate.judge_prompts import JudgePrompts
    from synthdiv.evaluate.rubric import Rubric
    from synthdiv.prompts.prompt_set import FILE
    from synthdiv.train.pretrain import train_tokenizer

    rubric = Rubric(**yaml.safe_load(RUBRIC.read_text(encoding="utf-8")))
    words = WORDS if material.origin().startswith("real") else WORDS // 2  # made-up words have twice the tokens
    texts = [" ".join(text.split()[:words]) for text in material.answers(ROWS * AUTHORS)]
    rows = [
        {
            "id": f"{row}/{a}-{b}/{order}", "split": "test", "position": 0,
            "prompt": rubric.render({"prompt": "Summarise the article.", "a": texts[one], "b": texts[other]}),
        }
        for row in range(ROWS)
        for a, b in combinations(range(row * AUTHORS, (row + 1) * AUTHORS), 2)
        for order, (one, other) in enumerate([(a, b), (b, a)])
    ]  # fmt: skip
    rows = [row | {"position": place} for place, row in enumerate(rows)]
    (folder / "prompts").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "prompts" / FILE)
    tokenizer = train_tokenizer([(text, None) for text in (*texts, rubric.instruction)], 4096)
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=4096, hidden_size=32, intermediate_size=96, num_hidden_layers=8, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=2048, initializer_range=0.1, bos_token_id=0, eos_token_id=1,
        pad_token_id=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
    return Artifact(JudgePrompts(rubric, len(rows)), "0" * 64, folder / "prompts")


def ours(folder: Path, judge_prompts: Any, opened: Any) -> tuple[float, list[float]]:
    """Seconds of processor time of the stage, and the probability of A for each item."""
    from synthdiv.core.local_run import LocalRun, isolated
    from synthdiv.core.runtime import Runtime
    from synthdiv.core.types import Artifact
    from synthdiv.generate.generate import Generate, Split, read_log, read_samples
    from synthdiv.generate.spec import Backend
    from synthdiv.models.checkpoint import Checkpoint

    stage = Generate("judge", Backend.logits, batch_tokens=BATCH_TOKENS, split=Split.test)
    run, out = LocalRun(Runtime(device="cpu"), lambda *_: opened), Path(tempfile.mkdtemp(dir=folder))
    inputs = {"prompts": judge_prompts, "model": Artifact(Checkpoint(), "1" * 64, folder / "model")}
    begun = time.process_time()
    with isolated(THREADS):
        stage.build(inputs, out, run)
    seconds = time.process_time() - begun
    options = {row.id: log["options"] for row, log in zip(read_samples(out), read_log(out), strict=True)}
    order = [row["id"] for row in rows_of(judge_prompts)]
    return seconds, [options[key]["A"] / sum(options[key].values()) for key in order]


def peer(judge_prompts: Any, opened: Any) -> tuple[float, list[float]]:
    """The same of one `generate` for each item."""
    import torch
    import transformers

    from synthdiv.models.chat import Chat
    from synthdiv.models.options import option_ids

    settings = transformers.GenerationConfig(
        max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True, pad_token_id=2
    )
    torch.set_num_threads(THREADS)
    begun, shares = time.process_time(), []
    chat, rows = Chat.for_prompts(opened.tokenizer, judge_prompts, opened.ends), rows_of(judge_prompts)
    lead, (a, b) = option_ids(chat, rows[0]["prompt"], judge_prompts.stage.rubric.options)
    for row in rows:
        ids = torch.tensor([chat.prompt(row["prompt"]) + lead])
        done = opened.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        first, second = done.logits[0][0, [a[0], b[0]]].softmax(0).tolist()
        shares.append(first / (first + second))
    return time.process_time() - begun, shares


def rows_of(judge_prompts: Any) -> list[dict[str, Any]]:
    from synthdiv.prompts.prompt_set import read_prompts

    return read_prompts(judge_prompts, "test")


def main() -> int:
    from synthdiv.core.types import Artifact
    from synthdiv.models.checkpoint import Checkpoint
    from synthdiv.models.load import open_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge_prompts = items(folder)
        checkpoint = Checkpoint(str(folder / "model"))
        opened = open_model(Artifact(checkpoint, "1" * 64, folder / "model"), "fp32", "cpu")
        passes, sides = list[int](), []
        opened.model.register_forward_pre_hook(
            lambda _, __, kwargs: passes.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        for _ in range(TURNS):
            passes.clear()
            result = ours(folder, judge_prompts, opened)
            rows = sum(passes)
            sides.append((result, peer(judge_prompts, opened)))
    count = len(sides[0][0][1])
    seconds, other = (min(side[place][0] for side in sides) for place in (0, 1))
    gap = max(abs(a - b) for a, b in zip(sides[0][0][1], sides[0][1][1], strict=True))
    print(f"{count} items, {rows} rows through the model ({os.cpu_count()} cores; {material.origin()})")
    print(f"ours {seconds:.2f} s, peer {other:.2f} s: {other / seconds:.2f} x (at least {FASTER:g} x)")
    print(f"P(A) at most {gap:.1e} apart (at most {APART:g})")
    wrong = other / seconds < FASTER or gap > APART or rows > count + 1
    print("SHORT" if wrong else "ok")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
