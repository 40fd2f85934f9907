"""A cell as a graph: prompts, answers, mix, student, evaluation. It reads as the method section of the paper."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from synthdiv.core.stage import Node, digest
from synthdiv.evaluate.collapse import Collapse
from synthdiv.evaluate.likelihood import Likelihood, Target
from synthdiv.evaluate.sentence_vectors import Vectors
from synthdiv.evaluate.truth import Truth
from synthdiv.generate.generate import Generate, Side
from synthdiv.generate.spec import Backend, Overlong
from synthdiv.mix.allocate import allocate, needed
from synthdiv.mix.mix import Mix
from synthdiv.prompts.shards import Grid
from synthdiv.study.config import Cell, Decoding, Generator, Kind, Student
from synthdiv.train.pretrain import Pretrain
from synthdiv.train.tokens import Tokens


@dataclass(frozen=True)
class Graph:
    """The nodes a cell is made of. `suites` are its end, `vanilla` those of the untouched student beside it; for that
    student itself the two are the same, and `mix` and `train` are None."""

    prompts: Node
    student: Node
    mix: Node | None
    train: Node | None
    suites: dict[str, Node]
    vanilla: dict[str, Node]

    @cached_property
    def key(self) -> str:
        """The identity of a cell: what it measures. Cells that mean the same have the same."""
        return digest([[name, node.key] for name, node in sorted(self.suites.items())])

    def nodes(self) -> dict[str, Node]:
        """Every node by key, inputs first."""
        found: dict[str, Node] = {}
        for node in (*self.suites.values(), *self.vanilla.values()):
            node.gather(found)
        return found


def graph(cell: Cell) -> Graph:
    """The graph of a resolved cell. The untouched student is in the graph of every cell: all is measured against it."""
    prompts = Node(cell.prompts)
    student = model(cell, cell.student)
    untouched = evaluated(cell, prompts, student, student)
    vanilla = suites(cell, prompts, untouched, None)
    if cell.mix.kind is Kind.none:
        return Graph(prompts, student, None, None, vanilla, vanilla)
    mix = mixed(cell, prompts)
    tokens = Node(Tokens(), (student, mix, prompts))
    tuned = Node(cell.train, (student, mix, prompts, tokens))
    return Graph(
        prompts,
        student,
        mix,
        tuned,
        suites(cell, prompts, evaluated(cell, prompts, tuned, student), untouched),
        vanilla,
    )


def model(cell: Cell, spec: Student | Generator) -> Node:
    """A model is always an input: a checkpoint (a fingerprint, no work), a pretrain node, or what a server has."""
    if isinstance(spec, Generator) and spec.hosted:
        return Node(replace(spec.hosted, price_in=spec.facts.price_in, price_out=spec.facts.price_out))
    stage = spec.checkpoint or spec.pretrain
    assert stage, "check() refuses a model without one"
    if isinstance(stage, Pretrain) and stage.toy and cell.prompts.toy:
        own = replace(stage.toy, world=stage.toy.world or cell.prompts.toy.world)
        if own.family is None:  # a student speaks a law of its own
            own = replace(own, families=1, overlap=0.0, shift=0.0)
        overlap = cell.generators.overlap if own.overlap is None else own.overlap
        shift = cell.generators.shift if own.shift is None else own.shift
        stage = replace(stage, toy=replace(own, overlap=overlap, shift=shift if own.family else 0.0))
    return Node(stage)


def mixed(cell: Cell, prompts: Node) -> Node:
    """Shards of answers by the sources that the mix needs, and the mix of them."""
    sources, weights, real_share = shares(cell)
    rows = cell.mix.rows or cell.prompts.train_rows
    grid = Grid(cell.prompts.train_rows, cell.generators.shard_rows)
    rotation = cell.mix.rotation % len(sources) if len(sources) > 1 else 0
    owners = allocate(grid, rows, weights, real_share, rotation)
    shards = [
        answered(cell, prompts, sources[index], shard)
        for index, numbers in needed(grid, owners).items()
        for shard in numbers
    ]
    names = [source.name for source in sources]
    cards = (grid.rows, grid.shard_rows) if sources else (0, 0)  # a human set is dealt to nobody
    stage = Mix(rows, names, weights, real_share, rotation, *cards, cell.mix.sample if sources else 0)
    return Node(stage, (prompts, *shards))


def shares(cell: Cell) -> tuple[list[Generator], list[float], float]:
    """Sources, their weights, and the real share. Without a generated row there are no sources: a human set is the same
    whatever the generators."""
    mix, models = cell.mix, cell.generators.models
    if mix.kind is Kind.human or mix.real_share == 1:
        return [], [], 1.0
    if mix.kind is Kind.single:
        return [next(model for model in models if mix.source in (None, model.name))], [1.0], mix.real_share
    total = sum(mix.weights or [1.0] * len(models))
    return models, [weight / total for weight in mix.weights or [1.0] * len(models)], mix.real_share


def answered(cell: Cell, prompts: Node, source: Generator, shard: int) -> Node:
    """One shard of the train prompts, answered by one source."""
    stage = Generate(source.name, rows=cell.prompts.train_rows, shard_rows=cell.generators.shard_rows, shard=shard)
    if source.backend is Backend.recorded:  # nothing is sampled: sampling, batches and seed are no part of it
        return Node(replace(stage, backend=source.backend, recorded=source.recorded), (prompts,))
    stage = replace(
        stage,
        backend=source.backend,
        sampling=source.sampling,
        seed=cell.generators.seed,
        samples=cell.generators.samples,
    )
    if source.backend is Backend.api:  # it decides by itself what does not fit
        stage = replace(stage, sampling=replace(source.sampling, overlong=Overlong.error))
    else:
        stage = replace(stage, precision=source.precision)
    if source.backend is Backend.hf:  # servers cut batches of their own
        stage = replace(stage, batch_tokens=cell.generators.batch_tokens)
    else:
        stage = replace(stage, top_logprobs=cell.generators.top_logprobs)
    return Node(stage, (prompts, model(cell, source)))


@dataclass(frozen=True)
class Evaluated:
    """What a student says in each decoding, what the untouched student thinks of it, its sentence vectors where there
    is an encoder; and what the student thinks of given answers."""

    answers: dict[str, Node]
    own: dict[str, Node]
    vectors: dict[str, Node]
    human: Node | None
    support: Node | None

    def collapse(self) -> tuple[Node, ...]:
        """What the collapse suite takes of one arm, in its order."""
        said = [part[name] for name in self.answers for part in (self.answers, self.own, self.vectors) if name in part]
        return (*said, self.human) if self.human else tuple(said)


def evaluated(cell: Cell, prompts: Node, student: Node, untouched: Node) -> Evaluated:
    """A student is a generator: `respond` is `generate` on the test prompts, in every decoding."""
    spec = cell.evaluate

    def answer(decoding: Decoding) -> Node:
        stage = Generate(
            source="student",
            backend=spec.backend,
            sampling=decoding.sampling,
            precision=spec.precision,
            seed=spec.respond.seed,
            side=Side.test,
            rows=cell.prompts.test,
            samples=spec.respond.samples,
            subset=spec.respond.subset,
        )
        if spec.backend is Backend.hf:
            stage = replace(stage, batch_tokens=spec.batch_tokens)
        return Node(stage, (prompts, student))

    def likelihood(target: Target, limit: int, judge: Node, *answers: Node) -> Node:
        return Node(Likelihood(target, limit, spec.precision, spec.batch_tokens), (prompts, judge, *answers))

    answers = {decoding.name: answer(decoding) for decoding in spec.respond.decodings}
    return Evaluated(
        answers,
        {name: likelihood(Target.own, 0, untouched, node) for name, node in answers.items()},
        {name: vectors(cell, prompts, node) for name, node in answers.items()} if spec.encoder else {},
        likelihood(Target.human, 0, student) if cell.prompts.human else None,
        likelihood(Target.support, spec.truth_prompts, student) if cell.prompts.toy else None,
    )


def vectors(cell: Cell, prompts: Node, answers: Node | None = None) -> Node:
    """Sentence vectors of answers, or of the human test answers, each cut to the words of the `@texts` budget."""
    encoder = cell.evaluate.encoder
    assert encoder, "asked for only where there is one"
    return Node(Vectors(answers is None, cell.evaluate.texts), (answers or prompts, Node(encoder)))


def suites(cell: Cell, prompts: Node, student: Evaluated, vanilla: Evaluated | None) -> dict[str, Node]:
    """The evaluations of one student, each beside the untouched one (`vanilla` None: this is the untouched one)."""
    spec = cell.evaluate
    said = [node for arm in (student, vanilla) if arm for node in arm.collapse()]
    if spec.encoder and cell.prompts.human:
        said.append(vectors(cell, prompts))
    collapse = Collapse(
        list(student.answers),
        cell.prompts.human,
        vanilla is None,
        spec.encoder is not None,
        spec.words,
        spec.texts,
        seed=spec.seed,
    )
    found = {"collapse": Node(collapse, tuple(said))}
    plain = next(
        (d.name for d in cell.evaluate.respond.decodings if d.sampling.temperature == d.sampling.top_p == 1), None
    )
    if student.support and plain:
        base = (vanilla.support,) if vanilla and vanilla.support else ()
        found["truth"] = Node(Truth(vanilla is None), (prompts, student.support, student.answers[plain], *base))
    return found
