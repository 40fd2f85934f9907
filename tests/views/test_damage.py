"""A file of an artifact that was damaged costs what it holds, and neither the page nor what is published."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from synthdiv.study.config import Track, TrackerName
from synthdiv.views.report.page import write_report
from synthdiv.views.track import publish as publishing
from tests.views.track.test_cell import Recorder

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "changed": lambda data: bytes(byte ^ 0x5A for byte in data),
}


@pytest.fixture(params=DAMAGES)
def damaged(request: pytest.FixtureRequest, study: Path, tmp_path: Path) -> Path:
    """A finished study whose every file is damaged, but for manifests and scores, without which nothing is known. (A
    suite with a file of another size is not believed at all.)"""
    root = Path(shutil.copytree(study, tmp_path / "study")) / "outputs"
    files = [path for path in root.glob("artifacts/*/*/*") if path.is_file()]
    kept = ("manifest.json", "scores.json", *["items.parquet"] * (request.param == "truncated"))
    for path in files:
        if path.name not in kept:
            data = path.read_bytes()
            path.write_bytes(DAMAGES[request.param](data))
    assert len({path.name for path in files}) > 8
    return root


def test_damaged_files_cost_no_page_and_no_other_cell(
    damaged: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep,) = [folder.name for folder in (damaged / "sweeps").iterdir()]
    page = write_report(damaged, sweep, [])
    assert "<h2" in page.read_text(encoding="utf-8")
    assert "left out: " in caplog.text
    assert "`rm -r" in caplog.text
    monkeypatch.setattr(publishing, "tracker_of", lambda track, root, resume=False: Recorder())
    monkeypatch.setattr(publishing, "resumes", lambda track: False)
    assert publishing.publish(damaged, sweep, Track(TrackerName.wandb, "eggs")) == 1
    assert " left out (" in capsys.readouterr().err


def test_pipes_and_links_in_place_of_files_hold_no_page_and_are_sent_nowhere(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest of one artifact of each stage is a pipe, which would be read without an end; every mix is a link."""
    root = Path(shutil.copytree(study, tmp_path / "study")) / "outputs"
    for stage in (root / "artifacts").iterdir():
        manifest = next(stage.glob("*/manifest.json"))
        manifest.unlink()
        os.mkfifo(manifest)
    for mix in root.glob("artifacts/mix/*/mix.parquet"):
        (tmp_path / mix.parent.name).write_bytes(mix.read_bytes())
        mix.unlink()
        mix.symlink_to(tmp_path / mix.parent.name)
    assert "<h2" in write_report(root, "tiny", []).read_text(encoding="utf-8")
    monkeypatch.setattr(publishing, "tracker_of", lambda track, root, resume=False: recorder)
    monkeypatch.setattr(publishing, "resumes", lambda track: False)
    recorder = Recorder()
    assert publishing.publish(root, "tiny", Track(TrackerName.wandb, "eggs")) == 1
    assert "mix.parquet is no regular file of this folder" in capsys.readouterr().err
