"""Training, answering and scoring on one accelerator, beside peers: a model of Llama 3.2 1B's shape in bf16.

    python benchmarks/gpu.py [SECTION …]

products     operations a second of a large product of matrices: what MFU could be at most
train        real tokens a second, MFU and peak memory: full, LoRA, packed
compiled     the same with runtime.compile
peer         the same of TRL on the same rows
offload      the same with weights and optimizer in main memory
generate     new tokens a second, beside transformers' `generate` in batches of 32 in file order
likelihood   tokens a second

Weights and rows are random; lengths of rows are spread like those of instructions (log-normal, 8 to 2,048 tokens).
The first steps of a training do not count. The peer is `pip install trl==1.16.0`; without it there is none.
"""

from __future__ import annotations

import gc
import importlib.util
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPE: dict[str, Any] = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True, "max_position_embeddings": 4096,
}  # fmt: skip
LENGTH, ROWS, STEPS, WARM, LR = 2048, 32, 14, 4, 1e-5
PROMPTS, NEW = 256, 128


def llama(dtype: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    with torch.device("cuda"):
        torch.set_default_dtype(dtype)
        try:
            return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))
        finally:
            torch.set_default_dtype(torch.float32)


def some_rows(count: int) -> list[Any]:
    import numpy as np

    from synthdiv.train.rows import Row

    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(5.5, 0.8, count), 8, LENGTH).astype(int)
    return [Row(tuple(random.integers(3, 128000, length).tolist()), int(length) // 3) for length in lengths]


def free() -> None:
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def show(name: str, *words: str) -> None:
    print(f"{name:34s} {' | '.join(words)}", flush=True)


def products() -> None:
    import torch

    one, other = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        one @ other
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    show(f"products, {torch.cuda.get_device_name()}", f"{2 * 8192**3 / statistics.median(times) / 1e12:.0f} TFLOP/s")


def ours(
    lora: bool = False, packed: bool = False, steps: int = STEPS, warm: int = WARM, **runtime: Any
) -> dict[str, float]:
    import pyarrow.parquet
    import torch

    from synthdiv.core.local_run import LocalRun
    from synthdiv.core.runtime import Runtime
    from synthdiv.models.load import open_model
    from synthdiv.train.adapter import with_adapter
    from synthdiv.train.fit import fit
    from synthdiv.train.recipe import Lora, Optimizing, Training

    model = llama(torch.bfloat16 if lora else torch.float32)
    model = with_adapter(model, Lora(dropout=0.0), 0) if lora else model
    rows = some_rows(ROWS * steps)
    plan = [list(range(at, at + ROWS)) for at in range(0, len(rows), ROWS)]
    run = LocalRun(Runtime(device="cuda", **runtime), open_model)
    with tempfile.TemporaryDirectory() as out:
        fit(
            Training(
                model, rows, plan, Optimizing(LR, "constant", 0.0, 0.01, 1.0), 0, 2, Path(out), run, "bf16",
                LENGTH if packed else 0,
            )
        )  # fmt: skip
        points = pyarrow.parquet.read_table(Path(out) / "metrics.parquet").to_pylist()[warm:]
    seconds = sum(point["tokens"] / point["tokens_per_second"] for point in points)
    return {
        "rate": sum(point["tokens"] for point in points) / seconds,
        "mfu": statistics.median(point["mfu"] for point in points),
        "bytes": max(point["memory_bytes"] for point in points),
    }


def trl_side(lora: bool = False, packed: bool = False) -> dict[str, float]:
    """Eight rows at once, four times a step: all at once do not fit beside their logits."""
    import datasets
    import peft
    import torch
    import transformers
    import trl

    rows, times = some_rows(ROWS * STEPS), []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            times.append(time.perf_counter())

    ids = [list(row.ids) for row in rows]
    masks = [[int(at >= row.prompt) for at in range(len(row.ids))] for row in rows]
    with tempfile.TemporaryDirectory() as out:
        settings = trl.SFTConfig(
            output_dir=out, per_device_train_batch_size=8, gradient_accumulation_steps=4, num_train_epochs=1,
            learning_rate=LR, lr_scheduler_type="constant", weight_decay=0.01, max_grad_norm=1.0, max_length=LENGTH,
            packing=packed, completion_only_loss=True, gradient_checkpointing=False, bf16=True, report_to="none",
            train_sampling_strategy="random" if packed else "sequential", save_strategy="no", logging_strategy="no",
            disable_tqdm=True,
        )  # fmt: skip
        data = datasets.Dataset.from_dict({"input_ids": ids, "completion_mask": masks})
        adapter = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if lora else None
        trainer = trl.SFTTrainer(
            model=llama(torch.bfloat16 if lora else torch.float32), args=settings, train_dataset=data,
            processing_class=small_tokenizer(), peft_config=adapter, callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    if packed:  # its steps hold other numbers of rows
        tokens = sum(map(len, ids)) * (len(times) - 2) / len(times)
        return {"rate": tokens / (times[-1] - times[1]), "bytes": torch.cuda.max_memory_allocated()}
    tokens = sum(len(row) for row in ids[WARM * ROWS :])
    return {"rate": tokens / (times[-1] - times[WARM - 1]), "bytes": torch.cuda.max_memory_allocated()}


def small_tokenizer() -> Any:
    from synthdiv.train.pretrain import train_tokenizer

    return train_tokenizer([("one two three", "four five six")] * 9, 300)


def train() -> None:
    for name, how in (
        ("full", {}),
        ("full, packed", {"packed": True}),
        ("LoRA", {"lora": True}),
        ("LoRA, packed", {"lora": True, "packed": True}),
        ("full, activations computed twice", {"gradient_checkpointing": True}),
    ):
        attempt(name, lambda: show_training(name, ours(**how)))  # noqa: B023


def compiled() -> None:
    for name, how in (
        ("full", {}),
        ("full, packed", {"packed": True}),
        ("LoRA", {"lora": True}),
        ("LoRA, packed", {"lora": True, "packed": True}),
    ):

        def timed(name: str = name, how: dict[str, bool] = how) -> None:
            begun = time.perf_counter()
            show_training(f"{name}, compiled", ours(**how, steps=3 * STEPS, warm=2 * STEPS, compile=True))
            show("", f"{time.perf_counter() - begun:.0f} s in all")

        attempt(name, timed)


def peer() -> None:
    if importlib.util.find_spec("trl") is None:
        return show("TRL", "not installed, so there is nobody to compare with: pip install trl==1.16.0")
    for name, how in (
        ("TRL full", {}),
        ("TRL full, packed", {"packed": True}),
        ("TRL LoRA", {"lora": True}),
        ("TRL LoRA, packed", {"lora": True, "packed": True}),
    ):
        attempt(name, lambda: show_training(name, trl_side(**how)))  # noqa: B023
    return None


def offload() -> None:
    """Last of the trainings: a process group stays until the process ends."""
    for name in ("fsdp2_offload", "deepspeed_stage_3_offload"):
        attempt(name, lambda: show_training(f"full, {name}", ours(strategy=strategy(name), steps=3, warm=1)))  # noqa: B023


def strategy(name: str) -> Any:
    from synthdiv.core.strategy import Strategy

    return Strategy(name)


def show_training(name: str, sums: dict[str, float]) -> None:
    mfu = f"MFU {sums['mfu']:.1%}" if "mfu" in sums else ""
    show(name, f"{sums['rate']:,.0f} tokens/s", f"{sums['bytes'] / 2**30:.1f} GiB", mfu)


def attempt(name: str, run: Callable[[], object]) -> None:
    """One failure does not hide what follows."""
    from synthdiv.core.local_run import isolated

    free()
    try:
        with isolated(0):
            run()
    except Exception as error:
        show(name, "FAILED", f"{type(error).__name__}: {error}"[:300])
        traceback.print_exc()


def generate() -> None:
    import numpy as np
    import torch

    from synthdiv.generate.decode import decode, row_cache
    from synthdiv.generate.spec import Sampling
    from synthdiv.generate.stream import RowSampler, row_seed
    from synthdiv.models.score import batches

    model, random = llama(torch.bfloat16).eval(), np.random.default_rng(0)
    prompts = [random.integers(3, 128000, length).tolist() for length in random.integers(30, 400, PROMPTS)]
    sampling = Sampling(0.7, 0.9, NEW)

    @torch.inference_mode()
    def stage(budget: int) -> None:
        for batch in batches([len(prompt) + NEW for prompt in prompts], budget):
            ids = [prompts[at] for at in batch]
            seeds = [row_seed(0, "m", "s", "r", 0, str(at), 0) for at in batch]
            decode(model, row_cache(model), ids, [1], NEW, RowSampler(seeds, NEW, "cuda", sampling, ids), "cuda")

    @torch.inference_mode()
    def transformers_loop(size: int) -> None:
        for at in range(0, PROMPTS, size):
            ids = prompts[at : at + size]
            width = max(map(len, ids))
            padded = torch.tensor([[0] * (width - len(row)) + row for row in ids], device="cuda")
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device="cuda")
            model.generate(
                padded, attention_mask=mask, do_sample=True, temperature=0.7, top_p=0.9, top_k=0, max_new_tokens=NEW,
                eos_token_id=1, pad_token_id=2,
            )  # fmt: skip

    cases: list[tuple[str, Callable[[int], None], int]] = [
        ("generate, peer, batches of 32", transformers_loop, 32),
        ("generate, peer, batches of 128", transformers_loop, 128),
        *((f"generate, ours, {budget:,} tokens", stage, budget) for budget in (8192, 16384, 65536)),
    ]  # fmt: skip
    with torch.inference_mode():
        model.generate(torch.tensor([prompts[0]], device="cuda"), max_new_tokens=8, eos_token_id=1, pad_token_id=2)
    for name, run, how in cases:

        def timed(name: str = name, run: Callable[[int], None] = run, how: int = how) -> None:
            torch.cuda.synchronize()
            begun = time.perf_counter()
            run(how)
            torch.cuda.synchronize()
            rate = PROMPTS * NEW / (time.perf_counter() - begun)
            show(name, f"{rate:,.0f} new tokens/s", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")

        attempt(name, timed)


def likelihood() -> None:
    import torch

    from synthdiv.models.load import OpenModel
    from synthdiv.models.score import answer_log_likelihoods

    opened = OpenModel(llama(torch.bfloat16).eval(), None, "cuda")
    pairs = [(list(row.ids[: row.prompt]), list(row.ids[row.prompt :])) for row in some_rows(512)]
    tokens = sum(len(prompt) + len(answer) for prompt, answer in pairs)
    for budget in (8192, 8192, 32768):
        free()
        begun = time.perf_counter()
        answer_log_likelihoods(opened, pairs, budget)
        torch.cuda.synchronize()
        rate = tokens / (time.perf_counter() - begun)
        show(
            f"likelihood, {budget:,} tokens",
            f"{rate:,.0f} tokens/s",
            f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB",
        )


def main() -> None:
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("torch finds no accelerator; the other files of this folder need none")
    sections: dict[str, Callable[[], None]] = {
        "products": products, "train": train, "compiled": compiled, "peer": peer, "generate": generate,
        "likelihood": likelihood, "offload": offload,
    }  # fmt: skip
    for name in sys.argv[1:] or sections:
        attempt(name, sections[name])


if __name__ == "__main__":
    main()
