"""Claims are declared before there are results; what is edited later is known as such."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from synthdiv.core.types import ConfigError
from synthdiv.study.claims import DeclaredClaim, Direction, declare, declared

JS = DeclaredClaim("multi - best single", "truth/js", Direction.lower)
NLL = DeclaredClaim("multi - human", "nll_2", Direction.equivalent, 0.1, ["student=toy_large"])


def test_a_claim_declared_before_results_is_known_whole(tmp_path: Path) -> None:
    declare(tmp_path, [JS, NLL], results=0)
    declare(tmp_path, [JS, NLL], results=5)  # the same launch again
    assert len((tmp_path / "claims.jsonl").read_text().splitlines()) == 1
    assert declared(tmp_path) == [(JS, ""), (NLL, "")]


def test_a_later_launch_adds_claims_and_removes_none(tmp_path: Path) -> None:
    declare(tmp_path, [JS], results=0)
    declare(tmp_path, [NLL], results=0)
    assert declared(tmp_path) == [(JS, "withdrawn"), (NLL, "")]
    declare(tmp_path, [JS, NLL], results=2)
    assert declared(tmp_path) == [(JS, ""), (NLL, "")]


def test_a_claim_edited_by_hand_is_marked_and_one_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    declare(tmp_path, [JS], results=0)
    file = tmp_path / "claims.jsonl"
    text = file.read_text()
    file.write_text(text.replace('"lower"', '"higher"'))
    assert declared(tmp_path) == [
        (replace(JS, direction=Direction.higher), "edited after it was declared: exploratory")
    ]
    file.write_text(text.replace('"lower"', '"sideways"'))
    with pytest.raises(
        ConfigError, match=r"claims\.jsonl: row 1 .*'sideways'.*directions are higher, lower, "
    ) as error:
        declared(tmp_path)
    assert "\n" not in str(error.value)


def test_claims_edited_after_results_are_marked(tmp_path: Path) -> None:
    declare(tmp_path, [JS], results=0)
    declare(tmp_path, [NLL], results=3)
    assert declared(tmp_path) == [
        (JS, "withdrawn after results"),
        (NLL, "added after 3 cells had results: exploratory"),
    ]


def test_an_edited_count_of_results_does_not_make_a_late_claim_confirmatory(tmp_path: Path) -> None:
    declare(tmp_path, [JS], results=3)
    file = tmp_path / "claims.jsonl"
    file.write_text(file.read_text().replace('"results": 3', '"results": 0'))
    declare(tmp_path, [JS], results=3)  # the same launch again does not hide the edit
    assert declared(tmp_path) == [(JS, "edited after it was declared: exploratory")]


def test_a_cut_line_does_not_drop_claims_unseen(tmp_path: Path) -> None:
    declare(tmp_path, [JS], results=0)
    file = tmp_path / "claims.jsonl"
    file.write_text(file.read_text()[:60])
    with pytest.raises(ConfigError, match=r"claims\.jsonl: 1 of its lines are cut; restore the file"):
        declared(tmp_path)
    declare(tmp_path, [NLL], results=0)  # a line of its own, not the end of the cut one
    file.write_text(file.read_text().partition("\n")[2])
    assert declared(tmp_path) == [(NLL, "")]


def test_a_sweep_without_claims_declares_nothing(tmp_path: Path) -> None:
    declare(tmp_path / "sweep", [], results=0)
    assert declared(tmp_path / "sweep") == []
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("claim", "problem"),
    [
        (
            DeclaredClaim("multi - mixture of singles", "truth/js"),
            "report.claims.0.measure='truth/js': for multi - mixture of singles choose excess over the mixture",
        ),
        (
            DeclaredClaim("multi - human", "excess over the mixture"),
            "report.claims.0.measure='excess over the mixture': for multi - human choose another score, or ",
        ),
        (
            DeclaredClaim("multi - worst single", "x"),
            "report.claims.0.contrast='multi - worst single': choose multi - best single",
        ),
        (DeclaredClaim("multi - human"), "report.claims.0.measure: needs the name of a score"),
        (
            DeclaredClaim("multi - human", "x", Direction.not_lower),
            "report.claims.0.margin=0: not_lower needs a margin",
        ),
    ],
)
def test_a_claim_that_cannot_be_tested_is_refused_with_the_choices(claim: DeclaredClaim, problem: str) -> None:
    (text,) = claim.check("report.claims.0")
    assert text.startswith(problem)


def test_two_values_of_an_axis_are_a_contrast() -> None:
    assert not DeclaredClaim("student=small - student=large", "x").check("c")
    assert DeclaredClaim("student=small - generators=large", "x").check("c")
