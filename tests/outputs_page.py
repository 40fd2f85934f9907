"""What docs/outputs.md does not have of the artifacts of a study: files, columns, and fields of lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "outputs.md").read_text(encoding="utf-8")
TEXT = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
CODE = re.compile(r"`([^`]+)`")


def stages_with_files() -> dict[str, set[str]]:
    """The files of each stage, by the first table that names it."""
    rows = [line.split("|")[1:3] for line in reversed(TEXT.splitlines()) if line.startswith("| ") and "`" in line]
    return {name: {*CODE.findall(files)} for names, files in rows for name in CODE.findall(names)}


def undocumented(outputs: Path) -> set[str]:
    """Names below `outputs` that the tree does not have, `STAGE/FILE` for files that the row of a stage (`SUITE` where
    it has none) does not name, `STAGE/FILE NAME` for columns and fields."""
    words, listed = stages_with_files(), {*CODE.findall(TEXT)}
    missing = {path.name for path in outputs.iterdir()} - {*re.findall(r"[\w.]+", PAGE.split("```")[1])}
    for manifest in sorted((outputs / "artifacts").glob("*/*/manifest.json")):
        stage = manifest.parent.parent.name
        for path in sorted(manifest.parent.iterdir()):
            name = path.name + "/" * path.is_dir()
            missing |= {f"{stage}/{name}"} - {
                f"{stage}/{file}" for file in (*words.get(stage, words["SUITE"]), manifest.name)
            }
            missing |= {f"{stage}/{name} {field}" for field in fields(path) if not {field, generic(field)} & listed}
    return missing


def generic(field: str) -> str:
    return re.sub(r"/.*", "/SOURCE", field)


def fields(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        yield from pyarrow.parquet.read_schema(path).names
    elif path.suffix == ".jsonl":
        yield from {name for line in path.read_text(encoding="utf-8").splitlines() for name in json.loads(line)}
    elif path.name == "manifest.json":
        yield from json.loads(path.read_text(encoding="utf-8"))
