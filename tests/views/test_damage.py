"""A file of an artifact that was damaged costs what it holds, and neither the page nor what is published."""

from __future__ import annotations

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
