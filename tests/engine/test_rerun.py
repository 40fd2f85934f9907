"""`rerun=NODE` builds one node anew, on purpose: nothing is overwritten, and nothing else is built."""

from __future__ import annotations

import json

import pytest

from synthdiv.core.ledger import Ledger
from tests.conftest import FILES, sources, write_files

STUDY = [*FILES, sources("one"), "mix=single", "sweep=s"]


@pytest.fixture
def finished(typed, tmp_path):
    write_files(tmp_path)
    assert typed(*STUDY).code == 0
    return {row.stage: row.key for row in Ledger(tmp_path / "outputs", "s").nodes()}


def test_rerun_builds_one_node_anew_and_keeps_the_old_artifact(typed, tmp_path, finished):
    key = finished["mix"]
    done = typed(*STUDY, f"rerun={key[:8]}")
    assert done.code == 0
    assert f"mix {key[:8]} is built anew" in done.err
    assert "1 nodes built" in done.err
    outputs = tmp_path / "outputs"
    files = [
        json.loads((folder / "manifest.json").read_text())["files"]
        for folder in (outputs / "replaced" / "mix" / f"{key}-1", outputs / "artifacts" / "mix" / key)
    ]
    assert files[0] == files[1]
    event = Ledger(outputs, "s").states()[key]
    assert (event.state, event.attempt) == ("built", 2)
    assert "0 nodes built" in typed(*STUDY).err
    typed(*STUDY, f"rerun=mix/{key[:4]}")
    assert (outputs / "replaced" / "mix" / f"{key}-2").is_dir()


@pytest.mark.parametrize("start", ["f", "zzzz", "0"])
def test_rerun_of_no_node_or_several_is_refused(typed, tmp_path, finished, start):
    done = typed(*STUDY, f"rerun={start}")
    assert done.code == 2
    assert f"rerun={start}: needs the first four or more digits of the key" in done.err
    assert not (tmp_path / "outputs" / "replaced").exists()


@pytest.mark.parametrize("word", ["rerun=aaaa,bbbb", "track=none,wandb"])
def test_settings_of_the_whole_launch_cannot_be_swept(typed, finished, word):
    done = typed("-m", *STUDY, word)
    assert done.code == 2
    assert "cannot be swept" in done.err
