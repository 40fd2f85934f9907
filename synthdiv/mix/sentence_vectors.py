"""Sentence vectors of answers, an artifact of their own: encoded once, whichever measures and arms take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.files import write_rows
from synthdiv.core.lazy import np
from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.generate.generate import Split, read_samples
from synthdiv.measures.words import REGEX, truncate_words
from synthdiv.mix.fine_tuning_set import FineTuningSet, read_mix
from synthdiv.models.encoder import encode
from synthdiv.models.load import weights_folder
from synthdiv.prompts.prompt_set import read_prompts

FILE, ROWS = "vectors.npy", "rows.parquet"


@dataclass
class Vectors(Stage):
    """Sentence vectors of answers. Inputs: `answers` (of `generate`, or a mix), or `prompts` for the human answers of a
    split; and `encoder`, a checkpoint of sentence-transformers.

    Output: `vectors.npy`, float32 (n, d) as the encoder gives them, NaN for a text without words; and `rows.parquet`:
    id, sample, words (of the whole text). Equal texts have equal vectors.
    """

    name = "vectors"
    unit = "rows"
    bytes_per_unit = 1600
    less_memory = "lower runtime.micro_batch: so many texts are encoded at once"

    human: bool = False
    """Encodes human answers."""
    length: int = setting(0, least=0)
    """Each text is cut after so many words, in its own spelling (NFC); shorter ones stay whole. 0: no text is cut."""
    word: str = REGEX
    """The one regular expression for words."""
    batch_rows: int = setting(32, least=1)
    """Texts that are encoded at once; fewer where the device takes fewer."""
    split: Split = setting(Split.test, before=Split.test)  # noqa: RUF009
    """The split whose human answers are encoded."""

    def check(self, name: str) -> list[str]:
        if self.word == REGEX:
            return []
        return [f"{name}.word={self.word}: this version counts words by {REGEX}"]

    def input_names(self) -> tuple[str, ...]:
        return ("prompts" if self.human else "answers", "encoder")

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        stage: Any = inputs[self.input_names()[0]].stage
        of_mix = isinstance(stage, FineTuningSet)
        return Work(getattr(stage, self.split.value) if self.human else stage.rows if of_mix else stage.answers())

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        if self.word != REGEX:
            raise DataError(self.check("vectors")[-1])
        texts_from, checkpoint = (inputs[name] for name in self.input_names())
        rows = self.rows(texts_from)
        if not rows:
            raise DataError(f"{texts_from.path}: no answers to encode")
        cuts, batch = [truncate_words(text, self.length) for _, _, text in rows], run.micro_batch or self.batch_rows
        texts, words = [text for text, count in cuts if count], [count for _, count in cuts]
        run.close()  # the encoder takes the place of the open model
        how = (run.device, min(self.batch_rows, batch), run.progress)
        vectors, long = encode(weights_folder(checkpoint), texts, *how)
        run.close()
        values = np.full((len(rows), vectors.shape[1]), np.nan, np.float32)
        values[np.array(words) > 0] = vectors
        np.save(out / FILE, values)
        keys = zip(rows, words, strict=True)
        write_rows([{"id": key, "sample": sample, "words": count} for (key, sample, _), count in keys], out / ROWS)
        counts = {"rows": len(rows), "dimensions": vectors.shape[1], "texts": len({*texts})}
        return counts | {"empty": words.count(0), "truncated": int(long.sum())}

    def rows(self, artifact: Artifact) -> list[tuple[str, int, str]]:
        """(prompt id, sample, text) of each answer."""
        if self.human or isinstance(artifact.stage, FineTuningSet):
            rows = read_prompts(artifact, self.split.value) if self.human else read_mix(artifact)
            return [(row["id"], 0, row["response"]) for row in rows]
        return [(row.id, row.sample, row.response) for row in read_samples(artifact.path)]


def read_vectors(artifact: Artifact) -> tuple[np.ndarray, dict[str, list[Any]]]:
    """Vectors (n, d), mapped from disk, and for each its `id`, `sample` and `words`."""
    import pyarrow.parquet

    return np.load(artifact.path / FILE, mmap_mode="r"), pyarrow.parquet.read_table(artifact.path / ROWS).to_pydict()


def truncated_note(artifact: Artifact, owner: str = "") -> str:
    """How many texts of a finished `vectors` artifact the encoder cut, as a note on their scores; or nothing."""
    summary = artifact.manifest["summary"]
    long = summary["truncated"]
    return f"{long} of {summary['rows']} {owner}texts exceed the encoder's context" if long else ""
