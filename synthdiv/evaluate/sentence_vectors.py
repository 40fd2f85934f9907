"""Sentence vectors of answers, an artifact of their own: encoded once, whichever measures and arms take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.fields import setting
from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.generate.generate import read_samples
from synthdiv.measures.words import REGEX, truncate_words
from synthdiv.models.encoder import encode_batches, exceeds_context, open_encoder
from synthdiv.models.load import weights_folder
from synthdiv.prompts.prompt_set import read_prompts

if TYPE_CHECKING:
    import numpy as np

FILE, ROWS = "vectors.npy", "rows.parquet"


@dataclass
class Vectors(Stage):
    """Sentence vectors of answers. Inputs: `answers` (of `generate`), or `prompts` for their human test answers; and
    `encoder`, a checkpoint of sentence-transformers.

    Output: `vectors.npy`, float32 (n, d) as the encoder gives them, NaN for a text without words; and `rows.parquet`:
    id, sample, words (of the whole text). Equal texts have equal vectors.
    """

    name = "vectors"
    unit = "rows"
    bytes_per_unit = 1600
    less_memory = "lower runtime.micro_batch: so many texts are encoded at once"

    human: bool = False
    """Encodes the human test answers."""
    length: int = setting(0, least=0)
    """Each text is cut after so many words, in its own spelling (NFC); shorter ones stay whole. 0: no text is cut."""
    word: str = REGEX
    """The one regular expression for words."""
    batch_rows: int = setting(32, least=1)
    """Texts that are encoded at once; fewer where the device takes fewer."""

    def check(self, name: str) -> list[str]:
        if self.word == REGEX:
            return []
        return [f"{name}.word={self.word}: this version counts words by {REGEX}"]

    def input_names(self) -> tuple[str, ...]:
        return ("prompts" if self.human else "answers", "encoder")

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        if self.human:
            return Work(inputs["prompts"].stage.test)  # type: ignore[attr-defined]
        return Work(inputs["answers"].stage.answers())  # type: ignore[attr-defined]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        import numpy as np
        import pyarrow
        import pyarrow.parquet

        if self.word != REGEX:
            raise DataError(self.check("vectors")[-1])
        texts_from, checkpoint = (inputs[name] for name in self.input_names())
        rows = self.rows(texts_from)
        if not rows:
            raise DataError(f"{texts_from.path}: no answers to encode")
        cuts = [truncate_words(text, self.length) for _, _, text in rows]
        run.close()  # the encoder takes the place of the open model
        encoder = open_encoder(weights_folder(checkpoint), run.device)
        texts = sorted({text for text, words in cuts if words}, key=lambda text: (len(text), text))
        places: dict[str, list[int]] = {text: [] for text in texts}
        for place, (text, words) in enumerate(cuts):
            if words:
                places[text].append(place)
        width = encoder.get_embedding_dimension()
        values = np.lib.format.open_memmap(out / FILE, "w+", np.float32, (len(rows), width))
        values[[place for place, (_, words) in enumerate(cuts) if not words]] = np.nan
        long, done = 0, 0
        for chunk, vectors in encode_batches(encoder, texts, min(self.batch_rows, run.micro_batch or self.batch_rows)):
            counts = [len(places[text]) for text in chunk]
            values[[place for text in chunk for place in places[text]]] = np.repeat(vectors, counts, axis=0)
            long += sum(np.array(counts)[exceeds_context(encoder, chunk)].tolist())
            done += len(chunk)
            run.progress(done, len(texts), "texts encoded")
        values.flush()
        del encoder
        run.close()
        ids, samples = [key for key, _, _ in rows], [sample for _, sample, _ in rows]
        table = {"id": ids, "sample": samples, "words": [words for _, words in cuts]}
        pyarrow.parquet.write_table(pyarrow.table(table), out / ROWS)
        empty = sum(not words for _, words in cuts)
        return {"rows": len(rows), "dimensions": width, "texts": len(texts), "empty": empty, "truncated": long}

    def rows(self, artifact: Artifact) -> list[tuple[str, int, str]]:
        """(prompt id, sample, text) of each answer."""
        if self.human:
            return [(row["id"], 0, row["response"]) for row in read_prompts(artifact, "test")]
        return [(row.id, row.sample, row.response) for row in read_samples(artifact.path)]


def read_vectors(artifact: Artifact) -> tuple[np.ndarray, dict[str, list[Any]]]:
    """Vectors (n, d), mapped from disk, and for each its `id`, `sample` and `words`."""
    import numpy as np
    import pyarrow.parquet

    return np.load(artifact.path / FILE, mmap_mode="r"), pyarrow.parquet.read_table(artifact.path / ROWS).to_pydict()


def truncated_note(artifact: Artifact, whose: str = "") -> str:
    """How many texts of a finished `vectors` artifact the encoder cut, as a note on their scores; or nothing."""
    summary = artifact.manifest["summary"]
    long = summary["truncated"]
    return f"{long} of {summary['rows']} {whose}texts exceed the encoder's context" if long else ""
