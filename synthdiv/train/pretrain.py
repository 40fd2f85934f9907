"""A small causal language model and its tokenizer, trained from nothing: for the toy world, and for real text."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.resolver import Resolver, pinned, unchanged
from synthdiv.core.stage import Stage, locator
from synthdiv.core.types import Artifact, ConfigError, DataError, Run
from synthdiv.models.chat import Chat
from synthdiv.models.load import quiet
from synthdiv.prompts.split import rank
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import World
from synthdiv.train.checkpoints import CHECKPOINTS
from synthdiv.train.fit import fit
from synthdiv.train.recipe import Optimizing, Training
from synthdiv.train.schedule import Match, schedule

if TYPE_CHECKING:
    from synthdiv.train.rows import Row

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Architecture(Enum):
    """The family of shapes."""

    llama = "llama"
    gpt2 = "gpt2"
    qwen2 = "qwen2"


@dataclass
class ToyCorpus:
    """`rows` prompts with answers, spoken by family `family` of `families`, or by a student (`family` null).

    Prompts are from the pre-training pool, which shares none with any study. `world`, `overlap` and `shift` null are
    those of the study: prompts.toy.world, generators.overlap, generators.shift.
    """

    family: int | None = None
    families: int = 4
    rows: int = 8000
    overlap: float | None = None
    shift: float | None = None
    world: World | None = None

    def check(self, name: str) -> list[str]:
        if self.family is not None and not 0 <= self.family < self.families:
            return [f"{name}.family={self.family}: needs 0 to {self.families - 1}, or null for a student"]
        return [] if self.rows > 0 else [f"{name}.rows={self.rows}: needs 1 row or more"]

    @property
    def speaker(self) -> str:
        return "student" if self.family is None else f"family {self.family}"


@dataclass
class TextCorpus:
    """A text file (`.txt` or `.txt.gz`), cut into documents at lines that equal `separator`; the first `megabytes`."""

    path: str | None = locator()
    separator: str = "<|doc|>"
    megabytes: float = 8.0
    sha256: str = ""


@dataclass
class Pretrain(Stage):
    """Inputs: none. Output: `model/` with weights and tokenizer, `metrics.parquet`.

    Stops after `tokens` supervised tokens; a step takes `batch_rows` sequences of at most `context` tokens.
    """

    name = "pretrain"
    version = 2
    model = True
    kept = (CHECKPOINTS,)

    toy: ToyCorpus | None = None
    text: TextCorpus | None = None
    architecture: Architecture = Architecture.llama
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    vocabulary: int = 1024
    context: int = 256
    tokens: int = 100000
    batch_rows: int = 32
    lr: float = 8e-3
    seed: int = 0

    def check(self, name: str = "pretrain") -> list[str]:
        problems = []
        if (self.toy is None) == (self.text is None):
            problems.append(f"{name}.toy, {name}.text: give one of the two corpora")
        if self.toy:
            problems += self.toy.check(f"{name}.toy")
        for field in ("hidden", "layers", "heads", "tokens", "batch_rows", "lr"):
            if not getattr(self, field) > 0:
                problems.append(f"{name}.{field}={getattr(self, field)}: needs more than 0")
        if self.context < 2:
            problems.append(f"{name}.context={self.context}: needs 2 tokens or more")
        if not 0 <= self.seed < 2**32:
            problems.append(f"{name}.seed={self.seed}: needs 0 to 2^32 - 1")
        if self.heads > 0 and self.hidden % self.heads:
            problems.append(f"{name}.hidden={self.hidden}: needs a multiple of {name}.heads={self.heads}")
        if self.vocabulary < 300:
            problems.append(
                f"{name}.vocabulary={self.vocabulary}: needs 300 or more (256 bytes and the special tokens)"
            )
        return problems

    def resolve(self, resolver: Resolver) -> None:
        if self.text:
            path = Path(self.text.path or "")
            if not path.is_file():
                raise ConfigError(f"pretrain.text.path={self.text.path}: no such file")
            self.text.sha256 = pinned("pretrain.text.sha256", self.text.sha256, resolver.file(path))

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        import torch

        from synthdiv.train.strategies import check_devices

        check_devices(run)
        if self.text:
            unchanged("pretrain.text.path", self.text.path, self.text.sha256)
        run.close()
        quiet()
        texts = list(toy_texts(self.toy, self.seed)) if self.toy else list(documents(self.text))  # type: ignore[arg-type]
        tokenizer = train_tokenizer(texts, self.vocabulary)
        rows = encode(texts, tokenizer, self.context)
        torch.manual_seed(rank(self.seed, "weights", self.toy.speaker if self.toy else "text"))
        model = blank_model(self, tokenizer)
        steps = schedule(
            [row.supervised for row in rows], self.batch_rows, Match.supervised_tokens, self.tokens, self.seed
        )
        optimizing = Optimizing(self.lr, "cosine", 0.05, 0.01, 1.0, (0.9, 0.98))
        summary = fit(Training(model, rows, steps, optimizing, self.seed, tokenizer.pad_token_id, out, run))
        model.save_pretrained(out / "model")
        tokenizer.save_pretrained(out / "model")
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        shape = {"hidden": self.hidden, "layers": self.layers}
        return (
            summary
            | shape
            | {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), "sequences": len(rows)}
        )


def toy_texts(corpus: ToyCorpus, seed: int) -> Iterator[tuple[str, str]]:
    """(prompt, answer) pairs in the voice of one speaker of the toy world."""
    assert corpus.world
    law = Law(corpus.world)
    own = f"{seed}/{corpus.speaker}"  # families of one law are still separate learners
    prompts = law.prompts(corpus.rows, "pretrain", own)
    if corpus.family is None:
        weights = law.student
    else:
        family, families = corpus.family, corpus.families

        def weights(category: int) -> Any:
            return law.family(family, families, corpus.overlap or 0.0, corpus.shift or 0.0, category)

    for prompt, answer in zip(prompts, law.sample(prompts, weights, own), strict=True):
        yield prompt.text, answer


def documents(corpus: TextCorpus) -> Iterator[tuple[None, str]]:
    """Documents of a text file up to its first megabytes (10^6 characters)."""
    path = Path(corpus.path or "")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as handle:
        text = handle.read(int(corpus.megabytes * 1e6))
    found = [document.strip() for document in text.split(f"\n{corpus.separator}\n")]
    if not any(found):
        raise DataError(f"pretrain.text.path={corpus.path}: the file holds no text")
    for document in found:
        if document:
            yield None, document


def train_tokenizer(texts: list[Any], size: int) -> Any:
    """A byte-level BPE of its own, with a chat template."""
    import tokenizers
    import transformers

    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, EOS, PAD, *ROLES],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator((text for pair in texts for text in pair if text), trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=BOS, eos_token=EOS, pad_token=PAD, additional_special_tokens=list(ROLES)
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def encode(texts: list[Any], tokenizer: Any, context: int) -> list[Row]:
    """Conversations as one sequence each, answers supervised; documents joined and cut into full sequences."""
    from synthdiv.train.rows import Row

    if texts[0][0] is not None:
        chat = Chat(tokenizer)
        every = list(dict.fromkeys(prompt for prompt, _ in texts))
        asked = dict(zip(every, chat.prompts(every), strict=True))
        said = chat.answers([answer for _, answer in texts])
        longest = max(map(len, asked.values()))
        if longest >= context:
            raise DataError(f"pretrain.context={context}: a prompt takes {longest} tokens and leaves none to an answer")
        return [
            Row(tuple((asked[prompt] + answer)[:context]), len(asked[prompt]))
            for (prompt, _), answer in zip(texts, said, strict=True)
        ]
    stream: list[int] = []
    for ids in tokenizer([text for _, text in texts], add_special_tokens=False)["input_ids"]:
        stream += [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    rows = [Row(tuple(stream[start : start + context]), 0) for start in range(0, len(stream) - context + 1, context)]
    if not rows:
        raise DataError(f"the corpus has {len(stream)} tokens, fewer than pretrain.context={context}")
    return rows


def blank_model(stage: Pretrain, tokenizer: Any) -> Any:
    """A randomly initialised model of the given shape; input and output embeddings are shared."""
    import transformers

    # 0.02, the usual spread, is made for wide models: at 64 units copying a prompt is then learnt ten times later
    spread = 0.5 / stage.hidden**0.5
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    common = {"vocab_size": len(tokenizer), "tie_word_embeddings": True, "initializer_range": spread} | {
        f"{k}_token_id": v for k, v in ids.items()
    }
    if stage.architecture is Architecture.gpt2:
        config: Any = transformers.GPT2Config(
            n_embd=stage.hidden, n_layer=stage.layers, n_head=stage.heads, n_positions=stage.context, **common
        )
    else:
        kind = transformers.LlamaConfig if stage.architecture is Architecture.llama else transformers.Qwen2Config
        config = kind(
            hidden_size=stage.hidden,
            intermediate_size=stage.hidden * 8 // 3 // 8 * 8,
            num_hidden_layers=stage.layers,
            num_attention_heads=stage.heads,
            num_key_value_heads=stage.heads,
            max_position_embeddings=stage.context,
            **common,
        )
    return transformers.AutoModelForCausalLM.from_config(config)
