"""Files that a key names by their content."""

from __future__ import annotations

import pytest

from synthdiv.core.resolver import unchanged
from synthdiv.core.store import file_digest
from synthdiv.core.types import DataError


def test_a_file_that_is_edited_or_removed_since_the_launch_is_refused_by_name(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("one")
    sha256 = file_digest(file)
    unchanged("table.path", str(file), sha256)
    file.write_text("another")
    with pytest.raises(DataError, match=r"table\.path=.*rows\.jsonl: the file changed since this sweep was launched"):
        unchanged("table.path", str(file), sha256)
    file.unlink()
    with pytest.raises(DataError, match=r"table\.path=.*rows\.jsonl: no such file any more; put it back"):
        unchanged("table.path", str(file), sha256)
