"""Texts of others move no cursor: whatever prints them goes through one file, which shows control characters."""

from __future__ import annotations

import ast
import json
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.core.store import require_format
from synthdiv.core.terminal import clean, log_handler
from tests.conftest import write_rows
from tests.structure import modules

ATTACK = "\x1b]0;owned\x07\x1b[2K\r\x9b1A\u202egpj.exe\ud800"
SHOWN = r"\u001b]0;owned\u0007\u001b[2K\u000d\u009b1A\u202egpj.exe\ud800"
WRITERS = {"print", "Console", "StreamHandler"}
ALLOWED = {"synthdiv.core.terminal": {"print", "StreamHandler"}, "synthdiv.views.layout": {"print", "Console"}}


def harmless(text: str) -> bool:
    return all(letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp") for letter in text)


@given(st.text(st.characters()))
def test_no_control_character_is_left_and_json_stays_json(text):
    assert harmless(clean(text))
    assert json.loads(clean(json.dumps([text], ensure_ascii=False))) == [text]
    assert clean(clean(text)) == clean(text)


def test_text_that_people_write_is_unchanged():
    text = "naïve — 日本語, हिन्दी, עברית\n\t“x” 👩‍💻 [bold] %s \\u001b"
    assert clean(text) == text
    assert clean("a\r\nb") == "a\nb"
    assert clean(ATTACK) == SHOWN


def test_one_file_writes_to_the_terminal():
    """And one makes the consoles of rich, from cleaned texts."""
    for name, file in modules().items():
        calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        names = {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls}
        assert names & WRITERS <= ALLOWED.get(name, set()), name
        assert "Text" not in names or name == "synthdiv.views.layout", name


def test_the_log_shows_control_characters(capsys):
    logger = logging.Logger("a")
    logger.addHandler(log_handler())
    try:
        raise ValueError(ATTACK)
    except ValueError:
        logger.exception("from a server: %s", ATTACK)
    assert harmless(capsys.readouterr().err)


@pytest.mark.parametrize("words", [["status", "eggs"], ["status", "eggs", "--json"], ["status"]])
def test_messages_of_failed_nodes_move_no_cursor(typed, tmp_path, words):
    require_format(tmp_path / "outputs", create=True)
    ledger = Ledger(tmp_path / "outputs", "eggs", "job")
    ledger.add(
        [CellRecord("c", "a", [f"x={ATTACK[:-1]}"], {}, {}, {}, {}, {}, ["n"], None, "p")],
        [NodeRecord("n", "train", {}, {})],
    )
    ledger.event("n", "failed", note=ATTACK, log=ATTACK)
    result = typed(*words)
    assert result.code == 0
    assert harmless(result.out)
    assert ("owned" in result.out) == (len(words) > 1)


@pytest.mark.parametrize("more", [[], ["--json"], ["--by", "no such"]])
def test_texts_and_columns_of_a_file_move_no_cursor(typed, tmp_path, more):
    write_rows(tmp_path / "a.jsonl", [{"response": "a b c", "source": ATTACK[:-1], ATTACK[:-1]: "x"}])
    result = typed("measure", "a.jsonl", *(more or ["--by", "source"]))
    assert result.code == (2 if "no such" in more else 0)
    assert harmless(result.out + result.err)


@pytest.mark.parametrize("project", ["../elsewhere", "a/b", "..", "", "a\0b", "x" * 129])
def test_a_tracked_project_is_no_path(typed, tmp_path, project):
    result = typed("mix=none", f"track.project='{project}'", "track.name=wandb")
    assert (result.code, result.out) == (2, "")
    assert "track.project=" in result.err
    assert not list(tmp_path.parent.glob("elsewhere*"))
