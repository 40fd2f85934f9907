"""G-Vendi of a fine-tuning set against one epoch of full fine-tuning on its rows; exits 1 beyond two epochs.

    python benchmarks/gradients.py

Processor time of one thread, the least of three runs of either side by turns, after one of each:

small    600 rows of the toy world, a student of 0.3 million weights: both stages, with projection, score and interval
large    24 rows of 30 to 70 tokens, a model of SmolLM2-135M's shape with random weights, of whose gradients only one
         fits into memory: projected gradients, against steps of AdamW on 8 rows at once in a plain loop
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the small models of tests

from synthdiv.evaluate.gradient_diversity import GradientDiversity
from synthdiv.mix.mix import Mix
from synthdiv.models.load import OpenModel
from synthdiv.models.score import answer_gradients
from synthdiv.prompts.prompt_set import Prompts, ToyPrompts
from synthdiv.prompts.toy_world import World
from synthdiv.train.recipe import Method
from synthdiv.train.train import Train
from synthdiv.views.layout import markdown
from tests.models.small import build, tiny_model

EPOCHS, RUNS = 2.0, 3


def least(*sides: Callable[[int], Any]) -> list[float]:
    """Processor time of each side."""
    spent: list[list[float]] = [[] for _ in sides]
    for run in range(RUNS + 1):
        for side, times in zip(sides, spent, strict=True):
            begun = time.process_time()
            side(run)
            times.append(time.process_time() - begun)
    return [min(times[1:]) for times in spent]  # the first run imports libraries


def small(folder: Path) -> list[float]:
    prompts = build(folder, Prompts(toy=ToyPrompts(700, World(categories=2)), test=60))
    mix = build(folder, Mix(600, real_share=1.0, train_rows=640, shard_rows=64), prompts)
    model, epoch = build(folder, tiny_model(hidden=96, layers=2)), Train(Method.full, epochs=1, batch_rows=16, lr=1e-3)
    epoch.validation = 0.0

    def train(run: int) -> None:
        epoch.seed = run
        build(folder, epoch, model, mix, prompts)

    return least(lambda run: build(folder, GradientDiversity(600, seed=run), prompts, mix, model), train)


def large() -> list[float]:
    import torch
    import transformers

    shape: dict[str, Any] = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
    }
    config = transformers.LlamaConfig(**shape, num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True)
    model = transformers.LlamaForCausalLM(config)
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(30, 71, (24,), generator=draw).sort().values.tolist()
    rows = [torch.randint(49152, (length,), generator=draw) for length in lengths]
    pairs = [(row[:25].tolist(), row[25:].tolist()) for row in rows]
    opened = OpenModel(model, None, "cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def train(_: int) -> None:
        for start in range(0, len(rows), 8):
            ids = torch.nn.utils.rnn.pad_sequence(rows[start : start + 8], batch_first=True)
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return least(lambda run: answer_gradients(opened, pairs, 1024, run), train)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        spent = {"small, 600 rows": small(Path(folder)), "large, 24 rows": large()}
    rows = [
        {"work": work, "g_vendi": f"{ours:.2f} s", "an epoch": f"{epoch:.2f} s", "ratio": f"{ours / epoch:.2f} x"}
        for work, (ours, epoch) in spent.items()
    ]
    print(markdown([{**row, "limit": f"{EPOCHS:g} x"} for row in rows]))
    return 0 if all(ours <= EPOCHS * epoch for ours, epoch in spent.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
