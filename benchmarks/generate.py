"""Answers of the backend `hf` against transformers' `generate`, on the same prompts and model; exits 1 where it falls
short.

    python benchmarks/generate.py [PROMPTS.jsonl]

peer     `generate` in batches of 32 in the order of the file, padded on the left
ours     the stage `Generate`, from the prompts to the rows on disk, in batches of about as many tokens
start    one more shard of a model that is open: all of the stage but the decoding

Prompts are the column `instruction` of the file, without one those of the toy world. Each side works by turns in a
process of its own, and its best time counts; its memory is what its peak adds to the process with the open model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROWS, NEW, BATCH, THREADS, TURNS = 256, 128, 32, 2, 2
BATCH_TOKENS = 8192
FASTER, MEMORY, START, CHANCE = 1.5, 1.05, 0.2, 0.001
TEMPERATURE, TOP_P = 0.7, 0.9
LONGEST = 1500  # characters of a prompt from a file
END = 1 / 40  # mean mass of the end at a step: lengths are about geometric, from nothing to the limit


def make_inputs(folder: Path, table: str | None) -> None:
    """Prompts and a model below `folder`, as artifacts of the two stages would hold them."""
    import pyarrow
    import pyarrow.parquet

    from synthdiv.prompts.prompt_set import FILE, ToyPrompts, toy_records
    from synthdiv.train.pretrain import train_tokenizer

    if table:
        with Path(table).open(encoding="utf-8") as lines:
            instructions = (json.loads(line)["instruction"] for line in lines)
            texts = [text for text in instructions if len(text) <= LONGEST]
    else:
        texts = [record["prompt"] for record in toy_records(ToyPrompts(2000), 0)]
    tokenizer = train_tokenizer([(text, None) for text in texts], 8192)
    rows = [
        {"id": f"p-{place}", "prompt": text, "split": "test", "position": place}
        for place, text in enumerate(texts[:ROWS])
    ]
    (folder / "prompts").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "prompts" / FILE)
    tokenizer.save_pretrained(folder / "model")
    ending_model(tokenizer, texts).save_pretrained(folder / "model")


def ending_model(tokenizer: Any, texts: list[str]) -> Any:
    """A Llama of 5.8 million random weights whose answers end.

    Logits are spread like those of a trained model, so that a nucleus holds tens of tokens. The first unit of the
    residual stream is the same for each token and no layer writes to it; the row of the end in the output layer reads
    it alone, so it is a bias, which is set for a mean mass of `END`.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=8192, hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=2048, initializer_range=0.1, bos_token_id=0, eos_token_id=1,
        pad_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.inference_mode():
        model.model.embed_tokens.weight[:, 0] = 1.5
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        head = model.lm_head.weight.mul_(3)
        head[:, 0] = 0
        head[1] = 0
        head[1, 0] = 1
        logits = model(**tokenizer(texts[:64], return_tensors="pt", padding=True)).logits[:, -1] / TEMPERATURE
        unit = logits[:, 1].clone()
        logits[:, 1] = -torch.inf
        low, high = 0.0, 1000.0
        for _ in range(40):
            middle = (low + high) / 2
            mass = (middle * unit - logits.logsumexp(-1)).sigmoid().mean()
            low, high = (middle, high) if mass < END else (low, middle)
        head[1, 0] = low
    return model


def ours(folder: Path, opened: Any, seed: int) -> tuple[float, float, list[str], int]:
    """Seconds of the stage, seconds of it without decoding, the answers, and their tokens."""
    from synthdiv.core.local_run import LocalRun, isolated
    from synthdiv.core.runtime import Runtime
    from synthdiv.core.types import Artifact
    from synthdiv.generate import hf
    from synthdiv.generate.answer import Answer
    from synthdiv.generate.generate import Generate, Split, read_samples
    from synthdiv.generate.spec import Sampling
    from synthdiv.models.checkpoint import Checkpoint
    from synthdiv.prompts.prompt_set import Prompts, ToyPrompts

    inputs = {
        "prompts": Artifact(Prompts(toy=ToyPrompts()), "0" * 64, folder / "prompts"),
        "model": Artifact(Checkpoint(), "1" * 64, folder / "model"),
    }
    stage = Generate(
        source="ours",
        sampling=Sampling(TEMPERATURE, TOP_P, NEW),
        batch_tokens=BATCH_TOKENS,
        seed=seed,
        split=Split.test,
    )
    run = LocalRun(Runtime(device="cpu"), lambda *_: opened)

    def build() -> tuple[float, Path]:
        out = Path(tempfile.mkdtemp(dir=folder))
        begun = time.perf_counter()
        with isolated(THREADS):
            stage.build(inputs, out, run)
        return time.perf_counter() - begun, out

    seconds, out = build()
    actual = read_samples(out)
    decoding, hf.answer_batch = hf.answer_batch, lambda *arguments: [Answer("", "stop", 1, 0) for _ in arguments[2]]
    start = min(build()[0] for _ in range(3))
    hf.answer_batch = decoding
    return seconds, start, [row.response for row in actual], sum(row.response_tokens for row in actual)


def peer(folder: Path, opened: Any, seed: int) -> tuple[float, float, list[str], int]:
    """The same of `generate`; it has no start of its own."""
    import pyarrow.parquet
    import torch

    from synthdiv.models.chat import Chat
    from synthdiv.prompts.prompt_set import FILE

    begun = time.perf_counter()
    texts = pyarrow.parquet.read_table(folder / "prompts" / FILE).column("prompt").to_pylist()
    torch.manual_seed(seed)
    chat, tokenizer = Chat(opened.tokenizer), opened.tokenizer
    answers, tokens = [], 0
    for first in range(0, len(texts), BATCH):
        ids = [{"input_ids": chat.prompt(text)} for text in texts[first : first + BATCH]]
        batch = tokenizer.pad(ids, return_tensors="pt", padding_side="left")
        out = opened.model.generate(
            **batch, do_sample=True, temperature=TEMPERATURE, top_p=TOP_P, top_k=0, max_new_tokens=NEW,
            eos_token_id=1, pad_token_id=2,
        )  # fmt: skip
        new = out[:, batch["input_ids"].shape[1] :].tolist()
        cut = [row[: row.index(1)] if 1 in row else row for row in new]
        tokens += sum(map(len, cut))
        answers += tokenizer.batch_decode(cut, skip_special_tokens=True)
    return time.perf_counter() - begun, 0.0, answers, tokens


def side(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """One side in this process, after a few rows that load what loads late."""
    import torch
    from alone import peak

    from synthdiv.core.types import Artifact
    from synthdiv.models.checkpoint import Checkpoint
    from synthdiv.models.load import open_model

    torch.set_num_threads(THREADS)
    opened = open_model(Artifact(Checkpoint(), "1" * 64, folder / "model"), "fp32", "cpu")
    ids = torch.tensor([[3, 4, 5, 6]] * 2)
    opened.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, top_p=0.9, max_new_tokens=4)
    before = peak()
    seconds, start, answers, tokens = {"ours": ours, "peer": peer}[name](folder, opened, seed)
    return {"seconds": seconds, "start": start, "answers": answers, "tokens": tokens, "bytes": peak() - before}


def alone(name: str, folder: Path, seed: int) -> dict[str, Any]:
    words = [sys.executable, __file__, "--side", name, str(folder), str(seed)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def chances(folder: Path, one: list[str], other: list[str]) -> tuple[float, float]:
    """p-values that both sides answer alike: lengths (Kolmogorov-Smirnov), first tokens (chi-square, those seen less
    than ten times as one). Both count in tokens of the answers' text."""
    from scipy import stats

    from synthdiv.models.load import load_tokenizer

    tokenizer = load_tokenizer(folder / "model")
    ids = [tokenizer(answers, add_special_tokens=False)["input_ids"] for answers in (one, other)]
    lengths = stats.ks_2samp(*([len(row) for row in rows] for rows in ids)).pvalue
    firsts = [Counter(row[0] if row else -1 for row in rows) for rows in ids]
    often = [token for token, count in (firsts[0] + firsts[1]).items() if count >= 10]
    table = [[*(count[token] for token in often), sum(count.values())] for count in firsts]
    table = [[*row[:-1], row[-1] - sum(row[:-1])] for row in table]
    return lengths, stats.chi2_contingency([column for column in zip(*table, strict=True) if any(column)]).pvalue


def main() -> int:
    short = []

    def show(name: str, value: str, must: str, fulfilled: bool) -> None:
        print(f"{name:10s} {value:60s} {must:18s} {'ok' if fulfilled else 'SHORT'}", flush=True)
        short.extend([] if fulfilled else [name])

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder, sys.argv[1] if len(sys.argv) > 1 else None)
        turns = [[alone(name, folder, turn) for name in ("peer", "ours")] for turn in range(TURNS)]
        peers, our_turns = zip(*turns, strict=True)
        lengths, firsts = chances(
            folder, *([text for turn in side for text in turn["answers"]] for side in (peers, our_turns))
        )
    speeds = [max(turn["tokens"] / turn["seconds"] for turn in side) for side in (peers, our_turns)]
    mebibytes = [max(turn["bytes"] for turn in side) / 2**20 for side in (peers, our_turns)]
    start = min(turn["start"] for turn in our_turns)
    summary = "{1:,.0f} new tokens/s, peer {0:,.0f}: {2:.2f} x".format(*speeds, speeds[1] / speeds[0])
    show("speed", summary, f"at least {FASTER:g} x", speeds[1] >= FASTER * speeds[0])
    summary = "{1:,.0f} MiB, peer {0:,.0f}: {2:.2f} x".format(*mebibytes, mebibytes[1] / mebibytes[0])
    show("memory", summary, f"at most {MEMORY:g} x", mebibytes[1] <= MEMORY * mebibytes[0])
    show("lengths", f"p = {lengths:.3f} that both have one law", f"at least {CHANCE:g}", lengths >= CHANCE)
    show("firsts", f"p = {firsts:.3f} that first tokens have one law", f"at least {CHANCE:g}", firsts >= CHANCE)
    show(
        "start",
        f"{start:.3f} s for one more shard of {len(our_turns[0]['answers'])} rows",
        f"at most {START:g} s",
        start <= START,
    )
    if short:
        print("falls short: " + ", ".join(short), file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        print(json.dumps(side(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))))
    else:
        sys.exit(main())
