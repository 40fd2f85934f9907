"""`synthdiv publish`: the store is the truth, a tracker a mirror that can be made again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from synthdiv.core.types import ConfigError
from synthdiv.study.config import Track, TrackerName
from synthdiv.views.report.page import write_report
from synthdiv.views.track import publish as publishing
from synthdiv.views.track.publish import publish, track_words, with_numbers
from tests.views.report.conftest import Study
from tests.views.report.reading import Page
from tests.views.track.test_cell import Recorder
from tests.views.track.test_wandb import Listener, items, on_terminal, records

WANDB = Track(TrackerName.wandb, "eggs")


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    made: list[Recorder] = []

    def tracker(track: Any, root: Any, resume: bool = False) -> Recorder:
        made.append(Recorder())
        return made[-1]

    monkeypatch.setattr(publishing, "tracker_of", tracker)
    monkeypatch.setattr(publishing, "resumes", lambda track: False)
    return made


def begun(recorders: list[Recorder]) -> list[Any]:
    """Name and tags of each run, and its exit code."""
    calls = [call for recorder in recorders for call in recorder.calls if call[0] in ("begin", "finish")]
    return [(begin[2], begin[4], finish[1]) for begin, finish in zip(calls[::2], calls[1::2], strict=True)]


def test_publishing_twice_writes_once_and_what_is_new_later(tmp_path: Path, recorders: Any, capsys: Any) -> None:
    study = Study(tmp_path)
    study.cell("human", 1.0)
    study.cell("multi", 2.0, build="some")
    assert publish(tmp_path, "eggs", WANDB) == 0
    assert begun(recorders) == [("vanilla → toy", ["eggs"], 0), ("human → toy · seed 0", ["eggs"], 0)]
    recorders.clear()
    assert publish(tmp_path, "eggs", WANDB) == 0
    assert begun(recorders) == []
    study.cell("multi", 2.0)
    publish(tmp_path, "eggs", WANDB)
    assert begun(recorders) == [("multi → toy · seed 0", ["eggs"], 0)]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "eggs: 2 published, 1 not finished", "eggs: 2 unchanged, 1 not finished", "eggs: 2 unchanged, 1 published"
    ]  # fmt: skip


def test_a_cell_has_the_tags_of_all_its_sweeps(tmp_path: Path, recorders: Any) -> None:
    Study(tmp_path).cell("human", 1.0)
    Study(tmp_path, "more").cell("human", 1.0)
    publish(tmp_path, "eggs", WANDB)
    assert begun(recorders)[-1] == ("human → toy · seed 0", ["eggs", "more"], 0)


def test_a_failed_cell_is_a_failed_run_until_it_succeeds(tmp_path: Path, recorders: Any) -> None:
    study = Study(tmp_path)
    cell = study.cell("human", 1.0, build="some")
    study.ledger.event(cell.suites["truth"], "failed", note="no such file")
    publish(tmp_path, "eggs", WANDB)
    assert begun(recorders)[-1] == ("human → toy · seed 0", ["eggs"], 1)
    study.cell("human", 1.0)
    study.ledger.event(cell.suites["truth"], "built")
    publish(tmp_path, "eggs", WANDB)
    assert begun(recorders)[-1] == ("human → toy · seed 0", ["eggs"], 0)


def test_a_damaged_cell_is_named_and_the_others_are_published(tmp_path: Path, recorders: Any, capsys: Any) -> None:
    study = Study(tmp_path)
    cell = study.cell("human", 1.0)
    study.cell("multi", 2.0)
    (tmp_path / "artifacts" / "truth" / cell.suites["truth"] / "scores.json").write_text("[")
    assert publish(tmp_path, "eggs", WANDB) == 1
    assert [name for name, _, _ in begun(recorders)] == ["vanilla → toy", "multi → toy · seed 0"]
    captured = capsys.readouterr()
    assert captured.err.startswith(f"1 cell left out ({cell.key[:8]}): truth")
    assert captured.out == "eggs: 2 published, 1 damaged\n"


def test_a_damaged_curve_is_named_once_for_all_its_cells_in_terminal_and_report(
    tmp_path: Path, recorders: Any, capsys: Any
) -> None:
    """Two sweeps' cells of one training; a launch names what its watcher could not show, whichever process it is in."""
    study = Study(tmp_path)
    cell = study.cell("human", 1.0)
    other = dataclasses.replace(cell, key="other", seeds=cell.seeds | {"evaluate.respond.seed": 1})
    study.ledger.add([other], [])
    study.cell("multi", 2.0)
    file = tmp_path / "artifacts" / "train" / str(cell.train) / "metrics.parquet"
    file.write_bytes(bytes(byte ^ 0x5A for byte in file.read_bytes()))
    reason = f"train {str(cell.train)[:8]}: metrics.parquet cannot be read (ArrowInvalid); `rm -r {file.parent}`"
    line = f"2 cells left out ({cell.key[:8]}, other): {reason}, and run the same command again"
    assert publish(tmp_path, "eggs", WANDB) == 1
    assert capsys.readouterr().err == f"{line}\n"
    assert publishing.unshown(tmp_path, "eggs", WANDB) == [line]
    assert publishing.unshown(tmp_path, "eggs", Track()) == []
    page = write_report(tmp_path, "eggs", [])
    assert page.with_name("answer.txt").read_text().splitlines()[-1].startswith(f"left out: {reason}")
    assert Page(page.read_text()).texts["unfinished"].count("metrics.parquet cannot be read") == 1


def test_numbers_of_a_table_are_numbers_to_a_tracker() -> None:
    rows = [{"arm": "a1", "n": "9", "low": "nan", "worst": "inf"}, {"arm": "2", "n": "", "low": "0.5", "worst": "1"}]
    first, second = with_numbers(rows)
    assert first == {"arm": "a1", "n": 9.0, "low": None, "worst": "inf"}, "infinite is not undefined"
    assert second == {"arm": "2", "n": None, "low": 0.5, "worst": "1"}


def test_words_of_the_verb() -> None:
    track = track_words(["track=trackio", "track.project=p", "track.entity=e"])
    assert (track.name, track.project, track.entity) == (TrackerName.trackio, "p", "e")
    assert track_words([]).name is TrackerName.wandb
    with pytest.raises(ConfigError, match="track=tensorboard: choose wandb, trackio"):
        track_words(["track=tensorboard"])
    with pytest.raises(ConfigError, match=r"track.project='a/b'"):
        track_words(["track.project=a/b"])


PUBLISH = """
import sys
from pathlib import Path
from synthdiv.study.config import Track, TrackerName
from synthdiv.views.track.publish import publish
sys.exit(publish(Path(sys.argv[1]), "eggs", Track(TrackerName.wandb, "eggs")))
"""


def test_offline_runs_are_one_a_cell_and_equal_the_store(tmp_path: Path) -> None:
    study, server = Study(tmp_path), Listener()
    study.cell("human", 1.0)
    study.cell("multi", 2.0, build="some")
    for _ in range(2):
        code, output = on_terminal(PUBLISH, tmp_path, server)
        assert code == 0, output
    cell = study.cell("multi", 2.0)  # finished since
    code, output = on_terminal(PUBLISH, tmp_path, server)
    assert (code, output) == (0, "eggs: 2 unchanged, 1 published\r\n")
    assert not server.called()
    server.socket.close()
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    runs = {file: next(r.run for r in records(file) if r.WhichOneof("record_type") == "run") for file in files}
    assert sorted(run.display_name for run in runs.values()) == [
        "human → toy · seed 0", "multi → toy · seed 0", "vanilla → toy"
    ]  # fmt: skip
    file = next(file for file, run in runs.items() if run.run_id == cell.key)
    summary: dict[str, Any] = {}
    for record in records(file):
        if record.WhichOneof("record_type") == "summary":
            summary |= items(record.summary.update)
    stored = {}
    for stage, key in cell.suites.items():
        rows = json.loads((tmp_path / "artifacts" / stage / key / "scores.json").read_text())
        stored |= {row["name"]: row for row in rows}
    assert summary["nll_2"] == stored["nll_2"]["value"] == 2.0
    assert (summary["nll_2/low"], summary["nll_2/high"], summary["nll_2/n"]) == (1.9, 2.1, 9)
    shown = {row[0]: row[1] for row in tables_of(file)["scores"]["data"]}
    assert shown == {name: None if row["value"] == "inf" else row["value"] for name, row in stored.items()}


def tables_of(file: Path) -> dict[str, Any]:
    return {
        table.name.split("_")[0]: json.loads(table.read_text())
        for table in file.parent.glob("files/media/table/*.json")
    }


def test_trackio_has_a_run_a_cell_and_replaces_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    script = PUBLISH.replace("TrackerName.wandb", "TrackerName.trackio")
    study, server = Study(tmp_path), Listener()
    study.cell("human", 1.0)
    assert on_terminal(script, tmp_path, server) == (0, "eggs: 2 published\r\n")
    Study(tmp_path, "more").cell("human", 1.0)  # another tag
    assert on_terminal(script, tmp_path, server) == (0, "eggs: 1 unchanged, 1 published\r\n")
    assert not server.called()
    server.socket.close()
    import sqlite3

    with sqlite3.connect(tmp_path / "trackio" / "eggs.db") as database:
        names = [name for (name,) in database.execute("select distinct run_name from metrics order by run_name")]
        rows = [json.loads(row) for (row,) in database.execute("select metrics from metrics") if b"nll_2" in row]
    database.close()
    assert [name.rsplit(" ", 1)[0] for name in names] == ["human → toy · seed 0", "vanilla → toy"]
    assert sorted(row["nll_2"] for row in rows if "nll_2" in row) == [1.0, 9.0]
