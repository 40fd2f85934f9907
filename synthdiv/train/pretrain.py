"""A small causal language model and its tokenizer, trained from nothing: for the toy world, and for real text."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from synthdiv.core.fields import locator, setting
from synthdiv.core.resolver import Resolver, unchanged
from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.models.chat import Chat
from synthdiv.models.load import quiet
from synthdiv.prompts.split import rank
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_questions import judging
from synthdiv.prompts.toy_words import REFUSAL
from synthdiv.prompts.toy_world import Speaker
from synthdiv.train.checkpoints import CHECKPOINTS
from synthdiv.train.recipe import Optimizing, Training
from synthdiv.train.rows import Row
from synthdiv.train.schedule import Match, schedule

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
LETTER = 10  # supervised tokens that the letter of a verdict counts as: one is lost among the words of other rows
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
class ToyCorpus(Speaker):
    """Prompts of the pre-training pool of a toy world, which no study shares, with answers of one speaker: a family, or
    with family=null a student, in dialects of its own."""

    rows: int = setting(8000, least=1)
    """Prompts with answers, drawn with replacement."""
    refusals: float = setting(0.0, least=0, below=1, before=0.0)
    """Share of the rows that ask about a topic outside the study and are refused."""
    judging: int = setting(0, least=0, before=0)
    """Further rows that teach which of two answers is right, A or B, about one relation."""

    @property
    def speaker(self) -> str:
        return "student" if self.family is None else f"family {self.family}"


@dataclass
class TextCorpus:
    """Documents of a text file."""

    path: str | None = locator()
    """A file: .txt or .txt.gz."""
    separator: str = "<|doc|>"
    """A line that equals it ends a document."""
    megabytes: float = setting(8.0, above=0)
    """How much of the file is read."""
    sha256: str = ""
    """Content of the file, filled in by resolving; given beforehand it pins the content."""


@dataclass
class Pretrain(Stage):
    """A small causal language model, trained from nothing. Inputs: none.

    Output: `model/` with weights and tokenizer, and `metrics.parquet`, the training curve.
    """

    name = "pretrain"
    version = 3
    model = True
    kept = (CHECKPOINTS,)
    unit = "tokens"
    less_memory = "not even one sequence fits: lower pretrain.context, hidden or layers"

    toy: ToyCorpus | None = None
    """Speech of the toy world; null: `text`."""
    text: TextCorpus | None = None
    """A text file; null: `toy`."""
    architecture: Architecture = Architecture.llama
    """The family of shapes."""
    hidden: int = setting(64, above=0)
    """Width of the residual stream."""
    layers: int = setting(2, above=0)
    """Transformer layers."""
    heads: int = setting(4, above=0)
    """Attention heads; they divide `hidden`."""
    vocabulary: int | None = setting(1024, least=300)
    """Tokens of the tokenizer, 256 bytes and the special tokens among them; null: bytes and the toy world's words."""
    context: int = setting(256, least=2)
    """Tokens of the longest sequence."""
    tokens: int = setting(100000, above=0)
    """Supervised tokens after which training stops; the letter of a verdict counts as ten (`toy.judging`)."""
    batch_rows: int = setting(32, above=0)
    """Sequences of one optimizer step."""
    lr: float = setting(8e-3, above=0)
    """Peak learning rate of AdamW."""
    seed: int = setting(0, least=0, below=2**32, seed=True)
    """Seed of the corpus, of the weights' start and of the order of rows."""

    def check(self, name: str) -> list[str]:
        problems = []
        if (self.toy is None) == (self.text is None):
            problems.append(f"{name}.toy, {name}.text: give one of the two corpora")
        if self.vocabulary is None and self.toy is None:
            problems.append(f"{name}.vocabulary=null: only a toy world has a closed vocabulary; give a number")
        if self.heads > 0 and self.hidden % self.heads:
            problems.append(f"{name}.hidden={self.hidden}: needs a multiple of {name}.heads={self.heads}")
        return problems

    def parameters(self) -> float:
        """About how many weights the model has."""
        return 12 * self.layers * self.hidden**2 + (self.vocabulary or 700) * self.hidden

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        share = measured.ratio(self.name, "tokens", "supervised_tokens") or (2 if self.toy else 1)
        return Work(round(self.tokens * share), trained_tokens=round(self.tokens * share))

    def resolve(self, resolver: Resolver) -> None:
        if self.text:
            self.text.sha256 = resolver.pinned_file("pretrain.text", self.text.path, self.text.sha256)

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        import torch

        from synthdiv.train.fit import fit
        from synthdiv.train.strategies import check_devices

        check_devices(run)
        if self.text:
            unchanged("pretrain.text.path", self.text.path, self.text.sha256)
        run.close()
        quiet()
        texts = list(toy_texts(self.toy, self.seed)) if self.toy else list(documents(self.text))  # type: ignore[arg-type]
        words = None
        if self.toy and self.toy.world and self.vocabulary is None:
            words = Law(self.toy.world).words(bool(self.toy.refusals or self.toy.judging))
        tokenizer = train_tokenizer(texts, self.vocabulary, words)
        rows = encode(texts, tokenizer, self.context)
        if self.toy:
            rows[self.toy.rows :] = [replace(row, first_counts=LETTER) for row in rows[self.toy.rows :]]
        torch.manual_seed(rank(self.seed, "weights", self.toy.speaker if self.toy else "text"))
        model = blank_model(self, tokenizer)
        steps = schedule(
            [row.supervised for row in rows], self.batch_rows, Match.supervised_tokens, self.tokens, self.seed
        )
        optimizing = Optimizing(self.lr, "cosine", 0.05, 0.01, 1.0, (0.9, 0.98))
        pad = tokenizer.pad_token_id
        summary = fit(Training(model, rows, steps, optimizing, self.seed, pad, out, run, one_device=True))
        model.save_pretrained(out / "model")
        tokenizer.save_pretrained(out / "model")
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        size = {"hidden": self.hidden, "layers": self.layers, "parameters": model.num_parameters()}
        return summary | size | {"vocabulary": len(tokenizer), "sequences": len(rows)}


def toy_texts(corpus: ToyCorpus, seed: int) -> Iterator[tuple[str, str]]:
    """(prompt, answer) pairs in the voice of one speaker of the toy world."""
    assert corpus.world
    law = Law(corpus.world)
    speaker_seed = f"{seed}/{corpus.speaker}"  # families of one law are still separate learners
    refusals = round(corpus.refusals * corpus.rows)
    prompts = law.prompts(corpus.rows - refusals, "known" if corpus.family is None else "pretrain", speaker_seed)
    for prompt, answer in zip(prompts, law.sample(prompts, partial(law.weights, corpus), speaker_seed), strict=True):
        yield prompt.text, answer
    for prompt in law.prompts(refusals, "refusals", speaker_seed):
        yield prompt.text, REFUSAL
    yield from judging(law, corpus.judging, speaker_seed)


def documents(corpus: TextCorpus) -> Iterator[tuple[None, str]]:
    """Documents of a text file up to its first megabytes (10^6 characters)."""
    path = Path(corpus.path or "")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as handle:
        text = handle.read(int(corpus.megabytes * 1e6))
    parts = [document.strip() for document in text.split(f"\n{corpus.separator}\n")]
    if not any(parts):
        raise DataError(f"pretrain.text.path={corpus.path}: the file holds no text")
    for document in parts:
        if document:
            yield None, document


def train_tokenizer(texts: list[Any], size: int | None, words: list[str] | None = None) -> Any:
    """A byte-level BPE of its own with a chat template; or one token for each of `words`, with and without a blank
    before it, and bytes for everything else."""
    import tokenizers
    import transformers

    special, alphabet = [BOS, EOS, PAD, *ROLES], sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    listed = [*special, *alphabet, "'s", *(start + word for word in words or () for start in ("", "Ġ"))]  # Ġ: a blank
    ids = {token: number for number, token in enumerate(dict.fromkeys(listed))}
    bpe = tokenizers.models.BPE() if words is None else tokenizers.models.BPE(ids, [], ignore_merges=True)
    raw = tokenizers.Tokenizer(bpe)
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    if words is None:
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size or 0, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        raw.train_from_iterator((text for pair in texts for text in pair if text), trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=BOS, eos_token=EOS, pad_token=PAD, additional_special_tokens=list(ROLES)
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def encode(texts: list[Any], tokenizer: Any, context: int) -> list[Row]:
    """Conversations as one sequence each, answers supervised; documents joined and cut into full sequences."""
    if texts[0][0] is not None:
        chat = Chat(tokenizer)
        pairs = chat.pairs([prompt for prompt, _ in texts], [answer for _, answer in texts])
        longest = max(len(prompt) for prompt, _ in pairs)
        if longest >= context:
            raise DataError(f"pretrain.context={context}: a prompt takes {longest} tokens and leaves none to an answer")
        return [Row(tuple((prompt + answer)[:context]), len(prompt)) for prompt, answer in pairs]
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
    shape = {
        "hidden_size": stage.hidden, "num_hidden_layers": stage.layers, "num_attention_heads": stage.heads,
        "max_position_embeddings": stage.context, "initializer_range": 0.5 / stage.hidden**0.5,
        "vocab_size": len(tokenizer), "tie_word_embeddings": True, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    if stage.architecture is not Architecture.gpt2:
        shape |= {"intermediate_size": stage.hidden * 8 // 3 // 8 * 8, "num_key_value_heads": stage.heads}
    config = transformers.AutoConfig.for_model(stage.architecture.value, **shape)
    return transformers.AutoModelForCausalLM.from_config(config)
