"""Claims: one builder for each node; the claim of a dead one is taken over."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from synthdiv.core.claim import Claim, current, take
from synthdiv.core.stage import Node
from tests.core.test_store import Slow, obtain


def _take(folder: str, barrier, results) -> None:
    barrier.wait()
    results.put(take(Path(folder), None) is not None)


def test_one_of_many_takers_wins(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    takers = [context.Process(target=_take, args=(str(tmp_path), barrier, results)) for _ in range(4)]
    for taker in takers:
        taker.start()
    wins = [results.get(timeout=60) for _ in takers]
    for taker in takers:
        taker.join()
    assert sorted(wins) == [False, False, False, True]


def test_a_claim_is_dead_at_once_where_facts_say_so_and_clocks_are_not_asked(tmp_path, monkeypatch):
    first = take(tmp_path, None)
    assert first is not None
    assert current(tmp_path) == first
    assert not first.gone()
    fields = vars(first)
    assert Claim(**(fields | {"started": 1.0})).gone(), "the process id was used again"
    assert Claim(**(fields | {"boot": "before"})).gone(), "the machine was started again"
    assert not Claim(**(fields | {"host": "elsewhere", "pid": 1})).gone(), "another host cannot be judged from here"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    elsewhere = fields | {"host": "elsewhere", "slurm_job": "7"}
    assert Claim(**(elsewhere | {"slurm_restart": "0"})).gone(), "the same job was requeued"
    assert not Claim(**(elsewhere | {"slurm_restart": "1"})).gone()
    assert take(tmp_path, first) is not None
    assert take(tmp_path, first) is None, "somebody followed it already"
    assert len(list(tmp_path.glob("claim.*"))) == 2


def test_a_claim_that_cannot_be_read_is_a_dead_one(tmp_path):
    """The disk lost it in a power cut: the next builder follows it instead of waiting for nobody."""
    folder = tmp_path / "artifacts" / "slow" / f".{Node(Slow()).key}"
    folder.mkdir(parents=True)
    (folder / "claim.0").write_text("")
    assert obtain(tmp_path, Slow())[1]


def test_the_partial_that_came_furthest_is_continued(tmp_path):
    """A builder killed while it copied leaves a newer partial with less in it."""
    node = Node(Slow(lines=9))
    for token, lines in (("a", 6), ("b", 2)):
        partial = tmp_path / "artifacts" / "slow" / f".{node.key}" / f"{token}.partial"
        partial.mkdir(parents=True)
        (partial / "lines.txt").write_text("".join(f"{number}\n" for number in range(lines)))
    artifact, _ = obtain(tmp_path, Slow(lines=9))
    assert artifact.manifest["summary"]["continued_from"] == 6
