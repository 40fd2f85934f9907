"""Claims are declared before there are results; what is edited later is known as such."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthdiv.study.claims import DeclaredClaim, Direction, declare, declared

JS = DeclaredClaim("multi - best single", "truth/js", Direction.lower)
NLL = DeclaredClaim("multi - human", "nll_2", Direction.equivalent, 0.1, ["student=toy_large"])


def test_a_claim_declared_before_results_is_known_whole(tmp_path: Path) -> None:
    declare(tmp_path, [JS, NLL], results=0)
    declare(tmp_path, [JS, NLL], results=5)  # the same launch again
    assert len((tmp_path / "claims.jsonl").read_text().splitlines()) == 1
    assert declared(tmp_path) == [(JS, ""), (NLL, "")]


def test_claims_may_be_edited_until_there_are_results(tmp_path: Path) -> None:
    declare(tmp_path, [JS], results=0)
    declare(tmp_path, [NLL], results=0)
    assert declared(tmp_path) == [(NLL, "")]


def test_claims_edited_after_results_are_marked(tmp_path: Path) -> None:
    declare(tmp_path, [JS], results=0)
    declare(tmp_path, [NLL], results=3)
    assert declared(tmp_path) == [
        (JS, "withdrawn after results"),
        (NLL, "added after 3 cells had results: exploratory"),
    ]


def test_a_sweep_without_claims_declares_nothing(tmp_path: Path) -> None:
    declare(tmp_path / "sweep", [], results=0)
    assert declared(tmp_path / "sweep") == []
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("claim", "problem"),
    [
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
