"""A cell as a graph: prompts, answers, mix, student, evaluation. It reads as the method section of the paper."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from synthdiv.core.stage import Node, digest
from synthdiv.evaluate.suite import EvaluatedStudent
from synthdiv.evaluate.verdicts import JudgeModel
from synthdiv.generate.generate import Split
from synthdiv.generate.source import Source
from synthdiv.generate.spec import MODELLESS
from synthdiv.mix.mix import Mix, shard_input
from synthdiv.study.config import Cell, Kind, Student
from synthdiv.study.generators import Generator
from synthdiv.train.pretrain import Pretrain
from synthdiv.train.tokens import Tokens

Known = dict[tuple[Callable[..., Any], bytes], Any]


@dataclass(frozen=True)
class Graph:
    """The nodes of a cell. `suites` has the end node of each suite by its module, `vanilla` those of the vanilla
    student; `responses` are the student's answers by decoding. For the vanilla student itself the two are the same, and
    `mix` and `train` are None."""

    prompts: Node
    student: Node
    mix: Node | None
    train: Node | None
    responses: dict[str, Node]
    suites: dict[str, Node]
    vanilla: dict[str, Node]

    @cached_property
    def key(self) -> str:
        """The identity of a cell: what it measures. Cells that mean the same have the same."""
        return digest([[name, node.key] for name, node in sorted(self.suites.items())])

    def nodes(self) -> dict[str, Node]:
        """Every node by key, inputs first."""
        nodes: dict[str, Node] = {}
        self.gather(nodes)
        return nodes

    def gather(self, nodes: dict[str, Node]) -> None:
        """Add every node to `nodes`; what is there stays."""
        for node in (*self.suites.values(), *self.vanilla.values()):
            node.gather(nodes)


def graph(cell: Cell, known: Known | None = None) -> Graph:
    """The graph of a resolved cell. Every cell has the vanilla student: all scores are compared with its scores.

    Cells with the same `known` share the nodes of parts that are equal."""
    known = {} if known is None else known
    data = Cell(prompts=cell.prompts, generators=cell.generators)
    part = replace(data, student=cell.student, evaluate=cell.evaluate, judge=cell.judge)
    prompts, student, vanilla, vanilla_suites = once(known, untouched, part)
    if cell.mix.kind is Kind.none:
        return Graph(prompts, student, None, None, vanilla.responses, vanilla_suites, vanilla_suites)
    mix = once(known, mixed, replace(data, mix=cell.mix))
    tokens = Node(Tokens(), {"student": student, "mix": mix, "prompts": prompts})
    tuned = Node(cell.train, {"student": student, "mix": mix, "prompts": prompts, "tokens": tokens})
    arm = evaluated(cell, prompts, tuned, student, mix)
    return Graph(prompts, student, mix, tuned, arm.responses, suites(cell, arm, vanilla), vanilla_suites)


def once(known: Known, make: Callable[..., Any], *parts: Any) -> Any:
    """`make(*parts)`, computed once for equal parts of cells: those have the blocks that it reads, and no other."""
    key = (make, pickle.dumps(parts))
    if key not in known:
        known[key] = make(*parts)
    return known[key]


def untouched(cell: Cell) -> tuple[Node, Node, EvaluatedStudent, dict[str, Node]]:
    """Prompts, and the student before it is fine-tuned with its answers and suites."""
    prompts, student = Node(cell.prompts), model(cell, cell.student)
    vanilla = evaluated(cell, prompts, student, student)
    return prompts, student, vanilla, suites(cell, vanilla, None)


def model(cell: Cell, spec: Student | Generator) -> Node:
    """A model is always an input: a checkpoint (a fingerprint, no work), a pretrain node, or a hosted model."""
    if isinstance(spec, Generator) and spec.hosted:
        return Node(replace(spec.hosted, price_in=spec.facts.price_in, price_out=spec.facts.price_out))
    if isinstance(spec, Generator) and spec.law:
        return Node(of_world(cell, replace(spec.law, grade=spec.law.grade or cell.generators.grade)))
    stage = spec.checkpoint or spec.pretrain or spec.gguf
    assert stage, "check() refuses a model without one"
    if isinstance(stage, Pretrain) and stage.toy:
        stage = replace(stage, toy=of_world(cell, stage.toy))
    return Node(stage)


def of_world(cell: Cell, speaker: Any) -> Any:
    """A `Family` or `ToyCorpus` with the world and the settings that it leaves to the study."""
    assert cell.prompts.toy, "a check before refuses other prompts"
    world = speaker.world or cell.prompts.toy.world
    if speaker.family is None:  # a student has a law of its own
        return replace(speaker, world=world, families=1, overlap=0.0, shift=0.0)
    overlap = cell.generators.overlap if speaker.overlap is None else speaker.overlap
    shift = cell.generators.shift if speaker.shift is None else speaker.shift
    return replace(speaker, world=world, overlap=overlap, shift=shift if speaker.family else 0.0)


def source(cell: Cell, generator: Generator) -> Source:
    """A generator as a source of answers."""
    return Source(
        generator.name,
        generator.backend,
        None if generator.backend in MODELLESS else model(cell, generator),
        generator.recorded,
        generator.sampling,
        generator.precision,
        cell.generators.seed,
        cell.generators.batch_tokens,
        cell.generators.top_logprobs,
    )


def fine_tuning_set(cell: Cell) -> Mix:
    """Who answers which prompt. What makes no difference to a mix is not in it."""
    generators, weights, real_share = shares(cell)
    have, mix = cell.prompts.train_rows, cell.mix
    real_rows, turn = (mix.real_rows or 0) if generators else 0, mix.real_rotation if rotates(cell) else 0
    return Mix(
        mix.rows or have,
        [generator.name for generator in generators],
        weights,
        0.0 if real_rows else real_share,
        mix.rotation % len(generators) if len(generators) > 1 else 0,
        have if generators or turn else 0,
        cell.generators.shard_rows if generators else 0,  # no shards of human answers
        mix.sample if generators else 0,
        sorted({*mix.leave_out}),
        mix.filter,
        real_rows,
        turn,
    )


def rotates(cell: Cell) -> bool:
    """Whether `mix.real_rotation` makes a difference: there are other prompts for the human rows, or for the mix."""
    return 0 < shares(cell)[2] < 1 or 0 < (cell.mix.rows or 0) < cell.prompts.train_rows


def mixed(cell: Cell) -> Node:
    """The mix, and the shards of answers by the sources that it needs."""
    prompts, stage, generators = Node(cell.prompts), fine_tuning_set(cell), shares(cell)[0]
    grid = {"rows": stage.train_rows, "shard_rows": stage.shard_rows}
    answers = {
        shard_input(one.name, shard): one.answers(
            prompts, cell.generators.samples, split=Split.train, **grid, shard=shard
        )
        for index, shards in stage.shards().items()
        for one in [source(cell, generators[index])]
        for shard in shards
    }
    return Node(stage, {"prompts": prompts, **answers})


def shares(cell: Cell) -> tuple[list[Generator], list[float], float]:
    """Sources with a weight, their weights, and the real share. Without a generated row there are no sources: a human
    set is the same whatever the generators."""
    mix, models = cell.mix, cell.generators.models
    rows = mix.rows or cell.prompts.train_rows
    real_share = mix.real_rows / rows if mix.real_rows and rows > 0 else mix.real_share
    if mix.kind is Kind.human or real_share >= 1:
        return [], [], 1.0
    if mix.kind is Kind.single:
        return [next(model for model in models if mix.source in (None, model.name))], [1.0], real_share
    weights = mix.weights or [1.0] * len(models)
    used = [(model, weight / sum(weights)) for model, weight in zip(models, weights, strict=True) if weight]
    return [model for model, _ in used], [weight for _, weight in used], real_share


def judges(cell: Cell) -> tuple[JudgeModel, ...]:
    """Judges are sources: generators of verdicts, the same in every replicate."""
    models = [(judge, source(cell, judge)) for judge in cell.judge.models]
    shared = (cell.evaluate.batch_tokens, cell.judge.top_logprobs)
    return tuple(
        JudgeModel(replace(each, seed=0, batch_tokens=shared[0], top_logprobs=shared[1]), judge.headline)
        for judge, each in models
    )


def evaluated(cell: Cell, prompts: Node, student: Node, vanilla: Node, mix: Node | None = None) -> EvaluatedStudent:
    """A student is a source: it answers the test prompts in every decoding."""
    respond = cell.evaluate.respond
    which = {"split": Split.test, "rows": cell.prompts.test, "subset": respond.subset}
    arm = EvaluatedStudent(
        prompts, student, vanilla, {}, cell.evaluate, judges(cell), cell.judge.rubrics, mix,
        tuple(source(cell, generator) for generator in shares(cell)[0]) if mix else (),
    )  # fmt: skip
    for decoding in respond.decodings:
        arm.responses[decoding.name] = arm.source(decoding.sampling).answers(prompts, respond.samples, **which)
    return arm


def suites(cell: Cell, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> dict[str, Node]:
    """The end node of each suite that applies, by its module."""
    nodes = {suite.suite: suite.node(arm, vanilla) for suite in cell.evaluate.suites}
    return {name: node for name, node in nodes.items() if node}
