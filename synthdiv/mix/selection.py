"""Rows chosen from a pool of answers by how diverse they are together, and what is right among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.measures.accuracy import exact_match, normal_form
from synthdiv.measures.vectors import unit_vectors
from synthdiv.measures.words import MARK, pattern, spaced, words
from synthdiv.mix.fine_tuning_set import FineTuningSet, read_mix, write_mix
from synthdiv.mix.sentence_vectors import read_vectors
from synthdiv.mix.subset import choose
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.split import largest_remainder
from synthdiv.prompts.toy import Law

TOKEN = rf"[\p{{L}}\p{{N}}_][\p{{L}}\p{{N}}_{MARK}]*+"
QUANTILES = (0.25, 0.5, 0.75)  # of length, which cut the pool into strata


@dataclass
class Selection(FineTuningSet):
    """Rows with the same numbers by source, correctness and length at every level. Inputs: `prompts`, by number mixes
    of every prompt of the pool, and if it is `encoded` their `vectors/NUMBER` and those of the split `target`, if that
    bounds the shift. Output: `mix.parquet`."""

    name = "selection"

    rows: int = 0
    """How many rows are selected, at most one answer to a prompt."""
    pools: int = 1
    """How many mixes there are, each with another answer to each prompt."""
    level: float | None = None
    """1: as spread out as possible; 0: near the medoids of a few parts; null: at random."""
    human: list[int] = field(default_factory=list)
    """The first train prompt with a human answer, how many have one, and of how many: these are not in the pool."""
    near: float = 1.0
    """The share of the pool, nearest to the split `target`, that is chosen from."""
    pattern: str = ""
    """The regular expression for labels."""
    seed: int = setting(0, least=0, before=0)
    """Seed of random rows, of the parts, and but for 0 of the row from which others spread out."""
    encoded: bool = setting(False, before=False)
    """Rows are compared by the vectors of a sentence encoder, not by hashed word 1- and 2-grams."""

    def input_names(self) -> list[str]:
        encoded = [*(f"vectors/{at}" for at in range(self.pools)), *["target"] * (self.near < 1)]
        return ["prompts", *map(str, range(self.pools)), *(encoded if self.encoded else [])]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        """Small strata choose first, so that no large one takes their prompts."""
        first, count, total = self.human
        pool = [row for at in range(self.pools) for row in read_mix(inputs[str(at)])]
        shares = Counter(row["source"] for row in pool)
        free = [at for at, row in enumerate(pool) if (row["position"] - first) % total >= count]
        vectors, pool = self.vectors(inputs, "vectors/", pool)[free], [pool[at] for at in free]
        if self.near < 1:
            target = self.vectors(inputs, "target", read_prompts(inputs["prompts"], "target"))
            order = np.argsort(-(vectors @ target.T).max(axis=1), kind="stable")
            nearest = np.sort(order[: max(1, round(self.near * len(pool)))])
            pool, vectors = [pool[at] for at in nearest], vectors[nearest]
        lengths, prompts = [len(words(row["response"])) for row in pool], np.array([row["position"] for row in pool])
        bins = np.searchsorted(np.quantile(lengths, QUANTILES), lengths).tolist()
        right = right_answers(inputs["prompts"], self.pattern, pool)
        strata = [(row["source"], value == 1, at) for row, value, at in zip(pool, right, bins, strict=True)]
        sizes, selected, quota = Counter(strata), list[int](), dict[Any, int]()
        for source, rows in zip(shares, largest_remainder(self.rows, [*shares.values()]), strict=True):
            of_source = [stratum for stratum in sizes if stratum[0] == source]
            quota |= zip(of_source, largest_remainder(rows, [sizes[stratum] for stratum in of_source]), strict=True)
        for stratum in sorted(sizes, key=lambda key: (sizes[key], key)):
            left = ~np.isin(prompts, prompts[selected])
            members = np.flatnonzero(left & [each == stratum for each in strata])
            picked = choose(vectors[members], quota[stratum], self.level, prompts[members], self.seed)
            selected += members[picked].tolist()
        if len(selected) < self.rows:
            raise DataError(
                f"mix.level={self.level}: {len(pool)} answers to {len({*prompts.tolist()})} prompts give "
                f"{len(selected)} of {self.rows} rows with equal numbers by length and correctness; lower mix.rows or "
                "raise generators.samples"
            )
        write_mix([pool[at] for at in sorted(selected)], out)
        return {"rows": self.rows, "pool": len(pool), "strata": len(sizes)}

    def vectors(self, inputs: Mapping[str, Artifact], name: str, rows: list[dict[str, Any]]) -> Any:
        """Unit vectors of the answers of `rows`: encoded, those of the inputs whose names begin with `name`; zeros for
        a text without words."""
        if not self.encoded:
            return hashed([row["response"] for row in rows], tokenizer=tokens, token_pattern=None, ngram_range=(1, 2))
        parts = [read_vectors(inputs[each])[0] for each in self.input_names() if each.startswith(name)]
        return np.nan_to_num(unit_vectors(np.concatenate(parts))).astype(np.float32)


def tokens(text: str) -> list[str]:
    """The words of a text as `\\w+` finds them; marks continue one, and letters of scripts without spaces are words."""
    return list(pattern(TOKEN).findall(spaced(text)))


def hashed(texts: Sequence[str], **ngrams: Any) -> Any:
    """Unit vectors (n, 512) of hashed n-grams; zeros for a text without any."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=512, dtype="float32", **ngrams).transform(texts or [""]).toarray()[: len(texts)]


def right_answers(prompts: Artifact, pattern: str, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """1 for a right answer, 0 for a wrong one, by the toy world or by the label of the human answer; NaN: not known."""
    train, toy = {row["id"]: row for row in read_prompts(prompts, "train")}, prompts.stage.toy
    if toy:
        law = Law(toy.world)
        return [float(law.is_right(row["prompt"], row["response"])) for row in rows]
    labels = [(train.get(row["id"], {}).get("response") if pattern else None) or "" for row in rows]
    known = [(row["response"], label, normal_form(label, pattern)) for row, label in zip(rows, labels, strict=True)]
    return [exact_match(text, [label], pattern) if form else np.nan for text, label, form in known]
