"""Fine-tuning against TRL's SFTTrainer on the same rows and model, fp32, two threads; exits 1 where it falls short.

    python benchmarks/train.py [ROWS.jsonl[.gz] [COLUMN=VALUE]]

unpacked   real tokens a second (no padding) of one epoch, eight rows a step in the same order
packed     eight sequences a step for TRL, in its random order, and as many rows on average for ours
loss       on 60 other rows after that epoch; it may not differ by more than a hundredth
memory     what the peak of the process adds to the libraries, one row at a time: LoRA as a share of full fine-tuning
tokens     seconds to render and tokenise 10,000 rows

Rows of a file have the columns `instruction`, `input` and `response`; without a file they are those of the toy world,
which are short and alike: there is little to gain, and nobody asks for more than to be no slower.
Each side works by turns in a process of its own, and its best time counts. The peer is `pip install trl==1.16.0`.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, HELD, BATCH, LENGTH, THREADS, TURNS, SEED = 600, 60, 8, 512, 2, 2, 0
MANY, LR = 10_000, 1e-3
UNPACKED, PACKED, NEAR, MEMORY, SECONDS = 3.0, 2.5, 0.01, 0.6, 5.0
SMALL = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 3}  # 4.5 million weights
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
LARGE = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 6}  # 49 million


def texts(file: str | None, only: str | None) -> list[tuple[str, str]]:
    """Prompts and answers."""
    if not file:
        from synthdiv.prompts.toy_world import World
        from synthdiv.train.pretrain import ToyCorpus, toy_texts

        return list(toy_texts(ToyCorpus(rows=2 * ROWS, overlap=0.0, shift=0.0, world=World()), SEED))
    column, _, value = (only or "").partition("=")
    with gzip.open(file, "rt", encoding="utf-8") if file.endswith(".gz") else open(file, encoding="utf-8") as lines:
        rows = (row for row in map(json.loads, lines) if not only or str(row[column]) == value)
        pairs = (("\n\n".join(filter(None, (row.get("input"), row["instruction"]))), row["response"]) for row in rows)
        return list(itertools.islice(pairs, 2 * ROWS))  # answers of some are beyond the length


def tokenised(pairs: list[tuple[str, str]], tokenizer: Any) -> list[Any]:
    from synthdiv.models.chat import Chat
    from synthdiv.train.tokens import encode, rendered
    from synthdiv.train.train import Train

    mix = [{"id": str(at), "prompt": prompt, "response": response} for at, (prompt, response) in enumerate(pairs)]
    return encode(Train(max_tokens=LENGTH), mix, rendered(Chat(tokenizer), mix))[0]


def make_inputs(folder: Path, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Rows in the order of the schedule, and tokenizer."""
    from synthdiv.train.pretrain import train_tokenizer
    from synthdiv.train.schedule import Match, schedule

    tokenizer = train_tokenizer(pairs, 8192)
    begun = time.perf_counter()
    tokenised(
        [
            (f"{at} {prompt}", response)
            for at, (prompt, response) in zip(range(MANY), itertools.cycle(pairs), strict=False)
        ],
        tokenizer,
    )
    seconds = time.perf_counter() - begun
    rows = tokenised(pairs, tokenizer)
    train, held = rows[:ROWS], rows[ROWS : ROWS + HELD]
    order = itertools.chain(*schedule([row.supervised for row in train], BATCH, Match.rows, len(train), SEED))
    tokenizer.save_pretrained(folder / "tokenizer")
    sides = {"train": [train[at] for at in order], "held": held}
    facts = {name: [[row.ids, row.prompt] for row in part] for name, part in sides.items()}
    (folder / "rows.json").write_text(json.dumps(facts | {"vocabulary": len(tokenizer)}))
    return {"seconds": seconds, "rows": len(train), "tokens": sum(len(row.ids) for row in train)}


def blank(folder: Path, shape: dict[str, Any]) -> Any:
    import torch
    import transformers

    torch.manual_seed(SEED)
    vocabulary = json.loads((folder / "rows.json").read_text())["vocabulary"]
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, num_attention_heads=4, max_position_embeddings=LENGTH, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1, pad_token_id=2, **shape,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def rows_of(folder: Path, part: str) -> list[Any]:
    from synthdiv.train.rows import Row

    return [Row(tuple(ids), prompt) for ids, prompt in json.loads((folder / "rows.json").read_text())[part]]


def ours(folder: Path, model: Any, packed: bool, rows: list[Any], out: Path, micro: int = 0) -> float:
    from synthdiv.core.local_run import LocalRun
    from synthdiv.core.runtime import Runtime
    from synthdiv.models.load import open_model
    from synthdiv.train.fit import fit
    from synthdiv.train.recipe import Optimizing, Training

    batch = round(BATCH * LENGTH * len(rows) / sum(len(row.ids) for row in rows)) if packed else BATCH
    steps = [list(range(at, min(at + batch, len(rows)))) for at in range(0, len(rows), batch)]
    optimizing = Optimizing(LR, "constant", 0.0, 0.01, 1.0)
    run = LocalRun(Runtime(device="cpu", micro_batch=micro), open_model)
    summary = fit(Training(model, rows, steps, optimizing, SEED, 2, out, run, packed=LENGTH if packed else 0))
    return float(summary["seconds"])


def peer(folder: Path, model: Any, packed: bool, rows: list[Any], out: Path) -> float:
    import datasets
    import trl

    from synthdiv.models.load import load_tokenizer

    ids = [list(row.ids) for row in rows]
    masks = [[int(at >= row.prompt) for at in range(len(row.ids))] for row in rows]
    settings = trl.SFTConfig(
        output_dir=str(out), per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=LR,
        lr_scheduler_type="constant", weight_decay=0.01, max_grad_norm=1.0, seed=SEED, max_length=LENGTH,
        packing=packed, completion_only_loss=True, gradient_checkpointing=False,
        train_sampling_strategy="random" if packed else "sequential",  # what it packs lies in the order of length
        bf16=False, use_cpu=True, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    data = datasets.Dataset.from_dict({"input_ids": ids, "completion_mask": masks})
    tokenizer = load_tokenizer(folder / "tokenizer")
    trainer = trl.SFTTrainer(model=model, args=settings, train_dataset=data, processing_class=tokenizer)
    begun = time.perf_counter()
    trainer.train()
    return time.perf_counter() - begun


def side(name: str, folder: Path, packed: bool) -> dict[str, float]:
    """One side in this process: seconds of an epoch, and the loss after it."""
    import torch

    from synthdiv.train.loss import loss_sum
    from synthdiv.train.rows import Rows

    torch.set_num_threads(THREADS)
    model, held = blank(folder, SMALL), rows_of(folder, "held")
    with tempfile.TemporaryDirectory() as out:
        rows = rows_of(folder, "train")
        seconds = {"ours": ours, "trl": peer}[name](folder, model, packed, rows, Path(out))
    model.eval()
    table = Rows(held, 2)
    with torch.no_grad():
        actual = [loss_sum(model, table.tensors([[at]], "cpu"))[0].item() for at in range(len(held))]
    return {"seconds": seconds, "loss": sum(actual) / sum(row.supervised for row in held)}


def held_bytes(folder: Path, lora: bool) -> dict[str, float]:
    """What the peak of this process adds to the libraries while a larger model is tuned, one row at a time: its
    weights, and not the activations that both keep, are what differs."""
    import torch
    from alone import peak

    from synthdiv.train.adapter import with_adapter
    from synthdiv.train.recipe import Lora

    torch.set_num_threads(THREADS)
    rows = [row for row in rows_of(folder, "train") if len(row.ids) < LENGTH // 2][: BATCH * 2]

    def tuned(shape: dict[str, int]) -> None:
        model = blank(folder, shape)
        model = with_adapter(model, Lora(dropout=0.0), SEED) if lora else model
        with tempfile.TemporaryDirectory() as out:
            ours(folder, model, False, rows, Path(out), 1)

    tuned(TINY)  # the libraries are loaded
    before = peak()
    tuned(LARGE)
    return {"bytes": peak() - before}


def alone(*words: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--side", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def best(name: str, folder: Path, packed: bool) -> dict[str, float]:
    return min((alone(name, str(folder), str(int(packed))) for _ in range(TURNS)), key=lambda actual: actual["seconds"])


def main() -> int:
    short = []
    if importlib.util.find_spec("trl") is None:
        print("trl is not installed, so there is nobody to compare with: pip install trl==1.16.0", file=sys.stderr)
        return 1

    def show(name: str, value: str, must: str, fulfilled: bool) -> None:
        print(f"{name:10s} {value:70s} {must:18s} {'ok' if fulfilled else 'SHORT'}", flush=True)
        short.extend([] if fulfilled else [name])

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        facts = make_inputs(folder, texts(*[*sys.argv[1:3], None, None][:2]))
        most = (("unpacked", False, UNPACKED), ("packed", True, PACKED))
        for name, packed, least in most if sys.argv[1:] else [(name, packed, 1.0) for name, packed, _ in most]:
            other, our_run = (best(who, folder, packed) for who in ("trl", "ours"))
            ratio, apart = other["seconds"] / our_run["seconds"], abs(our_run["loss"] / other["loss"] - 1)
            rates = [facts["tokens"] / each["seconds"] for each in (our_run, other)]
            summary = f"{rates[0]:,.0f} tokens/s, trl {rates[1]:,.0f}: {ratio:.2f} x"
            show(name, summary, f"at least {least:g} x", ratio >= least)
            summary = f"{our_run['loss']:.4f}, trl {other['loss']:.4f} nats a token on {HELD} other rows: {apart:.2%}"
            show("loss", summary, f"at most {NEAR:.0%}", apart <= NEAR)
        lora, full = (alone("memory", str(folder), str(kind))["bytes"] / 2**20 for kind in (1, 0))
        summary = f"LoRA {lora:,.0f} MiB, full {full:,.0f} MiB: {lora / full:.0%}"
        show("memory", summary, f"at most {MEMORY:.0%}", lora <= MEMORY * full)
        summary = f"{facts['seconds']:.2f} s for {MANY:,} rows"
        show("tokens", summary, f"at most {SECONDS:g} s", facts["seconds"] <= SECONDS)
    if short:
        print("falls short: " + ", ".join(short), file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        who, where, flag = sys.argv[2:5]
        where_ = Path(where)
        print(json.dumps(held_bytes(where_, flag == "1") if who == "memory" else side(who, where_, flag == "1")))
    else:
        sys.exit(main())
