"""Files of the store: which are regular, how far partial ones came, and who may read new ones."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MASK, BEFORE = threading.Lock(), list[int]()


def regular(path: Path) -> bool:
    """Whether `path` is a file and no link to one, no pipe and no device, which would be read without an end."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def regular_tree(path: Path) -> bool:
    """Whether `path` is a regular file, or a folder of nothing but regular files and folders."""
    if path.is_symlink() or not path.is_dir():
        return regular(path)
    return all(map(regular_tree, path.iterdir()))


def reach(paths: list[Path]) -> tuple[str, int]:
    """How far a build came: files of a folder are named in the order they are made, others grow."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return max((file.stem for file in files), default=""), sum(file.stat().st_size for file in files)


def write_whole(path: Path, text: str) -> None:
    """Write or replace a file. Whoever reads it sees all of it or none, also after a power cut."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # two containers can have equal process ids
    with draft.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(path)


def write_rows(rows: list[dict[str, Any]], path: Path, **how: Any) -> None:
    """Write rows, whose keys are columns, in order as a parquet file; `how` is that of pyarrow."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **how)


def read_rows(path: Path, **how: Any) -> list[dict[str, Any]]:
    """The rows of a parquet file in order; `how` is that of pyarrow."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, **how).to_pylist()


@contextlib.contextmanager
def readable_by_owner(only: bool) -> Iterator[None]:
    """Files that are made inside have mode 0600 if `only` the owner of the files may read them. The mode of a file is
    that of its creation: one that is changed afterwards can be read before. All threads have one mask: the last one
    inside sets that of before."""
    if not only:
        yield
        return
    with MASK:
        BEFORE.append(os.umask(0o077))
    try:
        yield
    finally:
        with MASK:
            os.umask(BEFORE.pop())
