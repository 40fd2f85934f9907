"""A cell as a graph: prompts, answers, mix, student, evaluation. It reads as the method section of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from synthdiv.core.fields import contents
from synthdiv.core.stage import Node, digest
from synthdiv.evaluate.likelihood import Likelihood, Target
from synthdiv.evaluate.suite import EvaluatedStudent, prompt_sets
from synthdiv.evaluate.verdicts import JudgeModel
from synthdiv.generate.generate import Split
from synthdiv.generate.source import Source
from synthdiv.generate.spec import MODELLESS
from synthdiv.mix.filters import Overlap
from synthdiv.mix.mix import OVERLAP, Mix, shard_input
from synthdiv.mix.round_rows import RoundFilter, RoundRows
from synthdiv.study.config import SINGLES, By, Cell, Kind
from synthdiv.study.generators import Generator, Model
from synthdiv.study.levels import level_inputs, matched_temperature
from synthdiv.study.lineage import Block, answering, block_of, decoded, fine_tuned, of_member, population
from synthdiv.study.rounds import Data, Init, Lineage, Writers
from synthdiv.train.pretrain import Pretrain

Known = dict[tuple[Callable[..., Any], Any], Any]


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
    part = replace(data, student=of_member(cell).student, evaluate=cell.evaluate, judge=cell.judge)
    prompts, student, vanilla, vanilla_suites = once(known, vanilla_arm, part)
    if cell.mix.kind is Kind.none:
        return Graph(prompts, student, None, None, vanilla.responses, vanilla_suites, vanilla_suites)
    if cell.rounds.round or cell.rounds.size > 1:
        loop = replace(part, student=cell.student, mix=cell.mix, train=cell.train)
        members = once(known, trained, replace(loop, rounds=replace(cell.rounds, member=0)))
    else:
        alone = cell.mix.overlap is Overlap.report and cell.mix.kind is not Kind.single_matched
        part_of_mix = replace(data if alone else part, mix=cell.mix)
        members = [fine_tuned(prompts, student, cell.train, once(known, mixed, part_of_mix))]
    tuned = members[cell.rounds.member]
    mix = tuned.inputs["mix"]
    arm = evaluated(cell, prompts, tuned, student, mix, members)
    return Graph(prompts, student, mix, tuned, arm.responses, suites(cell, arm, vanilla), vanilla_suites)


def once(known: Known, make: Callable[..., Any], *parts: Any) -> Any:
    """`make(*parts)`, computed once for equal parts of cells: those have the blocks that it reads, and no other."""
    key = (make, contents(parts))
    if key not in known:
        known[key] = make(*parts)
    return known[key]


def vanilla_arm(cell: Cell) -> tuple[Node, Node, EvaluatedStudent, dict[str, Node]]:
    """Prompts, and the student before it is fine-tuned with its answers and suites."""
    prompts, student = Node(cell.prompts), model(cell, cell.student)
    vanilla = evaluated(cell, prompts, student, student)
    return prompts, student, vanilla, suites(cell, vanilla, None)


def model(cell: Cell, spec: Model) -> Node:
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
        generator.name, generator.backend, None if generator.backend in MODELLESS else model(cell, generator),
        generator.recorded, generator.sampling, generator.precision,
        cell.generators.seed, cell.generators.batch_tokens, cell.generators.top_logprobs,
    )  # fmt: skip


def sources(cell: Cell) -> list[Source]:
    """The sources of the mix; that of mix=single_matched has its temperature tuned."""
    used = [source(cell, each) for each in shares(cell)[0]]
    if cell.mix.kind is Kind.single_matched:
        student = model(cell, cell.student)
        used = [replace(one, temperature=matched_temperature(cell, one, mixed, student)) for one in used]
    return used


def fine_tuning_set(cell: Cell, block: Block | None = None, students: Sequence[Source] = ()) -> Mix:
    """Who answers which prompt. What makes no difference to a mix is not in it. Of a round it has a `block` of prompts,
    which `students` answer if there are any."""
    generators, weights, real_share = shares(cell)
    have, mix, names = cell.prompts.train_rows, cell.mix, [generator.name for generator in generators]
    real_rows, turn = (mix.real_rows or 0) if generators else 0, mix.real_rotation if rotates(cell) else 0
    if students:
        names, weights = [each.name for each in students], [1 / len(students)] * len(students)
        real_rows, real_share = 0, cell.rounds.real_share
    block = block or Block(mix.rows or have, have)
    stage = Mix(
        block.rows, names, weights,
        0.0 if real_rows else real_share,
        mix.rotation % len(names) if len(names) > 1 else 0,
        block.grid_rows if names or turn else 0,
        cell.generators.shard_rows if names else 0,  # no shards of human answers
        mix.sample if names and not students else 0,
        sorted({*mix.leave_out}), real_rows, turn,
        block.first if names else 0,
        block.real_first if real_rows or real_share else 0,
        block.round,
        filter=mix.filter, duplicates=mix.duplicates, min_words=mix.min_words, max_words=mix.max_words,
        overlap=mix.overlap,
    )  # fmt: skip
    if mix.further(block.rows):
        stage = replace(stage, spare=mix.spare, train_rows=block.grid_rows)
    return stage


def rotates(cell: Cell) -> bool:
    """Whether `mix.real_rotation` makes a difference: there are other prompts for the human rows, or for the mix."""
    diversity, real_share = cell.mix.diversity_of_level(), shares(cell)[2]
    if diversity and diversity.by is By.topics and not real_share:
        return False  # the source writes the questions too
    return 0 < real_share < 1 or 0 < (cell.mix.rows or 0) < cell.prompts.train_rows


def mixed(cell: Cell, block: Block | None = None, students: Sequence[Source] = ()) -> Node:
    """The mix, and the shards of answers by the sources that it needs, or by the `students` of the round before."""
    prompts, stage = Node(cell.prompts), fine_tuning_set(cell, block, students)
    sets = {} if stage.overlap is Overlap.report else prompt_sets(vanilla_arm(cell)[3])
    stage.evaluated, level = [*sets], {} if block else level_inputs(cell, stage, mixed, source)
    writers, samples = students or sources(cell), cell.generators.samples
    which = {"rows": stage.train_rows, "shard_rows": stage.shard_rows, "first": stage.first, "round": stage.round}
    answers = {
        shard_input(one.name, shard): one.answers(
            prompts, 1 if students else samples, split=Split.train, shard=shard, **which
        )
        for index, shards in stage.shards().items()
        for one in [writers[index]]
        for shard in shards
    }
    return Node(stage, {"prompts": prompts, **{f"{OVERLAP}{name}": sets[name] for name in sets}, **level, **answers})


def shares(cell: Cell) -> tuple[list[Generator], list[float], float]:
    """Sources with a weight, their weights, and the real share. Without a generated row there are no sources: a human
    set is the same whatever the generators."""
    mix, models = cell.mix, [cell.mix.sampled(each) for each in cell.generators.models]
    rows = mix.rows or cell.prompts.train_rows
    real_share = mix.real_rows / rows if mix.real_rows and rows > 0 else mix.real_share
    if mix.kind is Kind.human or real_share >= 1:
        return [], [], 1.0
    if mix.kind in SINGLES:
        return [next(model for model in models if mix.source in (None, model.name))], [1.0], real_share
    weights = mix.weights or [1.0] * len(models)
    used = [(model, weight / sum(weights)) for model, weight in zip(models, weights, strict=True) if weight]
    return [model for model, _ in used], [weight for _, weight in used], real_share


def trained(cell: Cell) -> list[Node]:
    """The student of each member after the round of the cell. Round 0 is fine-tuning on the mix; the students of each
    round are the sources of the next."""
    rounds, prompts = cell.rounds, Node(cell.prompts)
    members = [(model(cell, student), recipe) for student, recipe in population(cell)]
    sets: list[list[Node]] = [[] for _ in members]
    students = list[Node]()
    for number in range(rounds.round + 1):
        for member, each in enumerate(sets):
            each.append(rows_of_round(cell, number, member, students))
        starts = students if rounds.init is Init["continue"] else []
        students = [
            fine_tuned(prompts, *members[member], rows_of_training(cell, each), starts[member] if starts else None)
            for member, each in enumerate(sets)
        ]
    return students


def rows_of_round(cell: Cell, number: int, member: int, students: list[Node]) -> Node:
    """The rows of one round for a member: the mix in round 0, later what the students of the round before write."""
    rounds, block, evaluate = cell.rounds, block_of(cell, number, member), cell.evaluate
    if not block or not block.round or rounds.writers is not Writers.students:
        return mixed(decoded(cell, number) if rounds.writers is Writers.decoding else cell, block)
    how = (answering(cell), evaluate.precision, cell.generators.seed, evaluate.batch_tokens)
    writers = enumerate(students) if rounds.lineage is Lineage.pooled else [(member, students[member])]
    return mixed(cell, block, [Source(f"student-{at}", evaluate.backend, each, None, *how) for at, each in writers])


def rows_of_training(cell: Cell, mixes: list[Node]) -> Node:
    """What a member trains on, of the mixes of its rounds so far."""
    rounds, prompts = cell.rounds, Node(cell.prompts)
    used = mixes[-1:] if rounds.data is Data.replace else mixes
    if len(mixes) == 1 or (len(used) == 1 and rounds.filter is RoundFilter.none):
        return used[-1]
    counts: list[int] = [mix.stage.rows for mix in used]  # type: ignore[attr-defined]
    draw = rounds.data is Data.accumulate_fixed
    stage = RoundRows(len(used), counts[0] if draw else sum(counts), draw, cell.generators.seed if draw else 0)
    if rounds.filter is not RoundFilter.none:
        stage.filter, stage.unfiltered = rounds.filter, int(len(used) > 1)
    inputs, judged = {str(number): mix for number, mix in enumerate(used)}, range(stage.unfiltered, len(used))
    if rounds.filter is RoundFilter.verifier:
        stage.least, judge = rounds.least, judges(cell)[0]
        inputs |= {f"values/{at}": judge.verdicts(cell.judge.rubrics.quality, prompts, used[at]) for at in judged}
    elif rounds.filter is RoundFilter.surprise:
        stage.drop, base = rounds.drop, {"prompts": prompts, "model": model(cell, cell.student)}
        how = Likelihood(Target.authors, 0, cell.evaluate.precision, cell.evaluate.batch_tokens, 1)
        inputs |= {f"values/{at}": Node(how, {**base, "0": used[at]}) for at in judged}
    return Node(stage, {"prompts": prompts, **inputs})


def judges(cell: Cell) -> tuple[JudgeModel, ...]:
    """Judges are sources: generators of verdicts, the same in every replicate."""
    tokens, logprobs = cell.evaluate.batch_tokens, cell.judge.top_logprobs
    return tuple(
        JudgeModel(replace(source(cell, each), seed=0, batch_tokens=tokens, top_logprobs=logprobs), each.headline)
        for each in cell.judge.models
    )


def evaluated(
    cell: Cell, prompts: Node, student: Node, vanilla: Node, mix: Node | None = None, members: Sequence[Node] = ()
) -> EvaluatedStudent:
    """A student is a source: it answers the test prompts in every decoding, and so do the other `members`."""
    respond = cell.evaluate.respond
    which = {"split": Split.test, "rows": cell.prompts.test, "subset": respond.subset}
    arm = EvaluatedStudent(
        prompts, student, vanilla, {}, cell.evaluate, judges(cell), cell.judge.rubrics, mix,
        tuple(sources(cell)) if mix else (),
    )  # fmt: skip
    for decoding in respond.decodings:
        arm.responses[decoding.name] = arm.source(decoding.sampling).answers(prompts, respond.samples, **which)
        for each in members if len(members) > 1 else ():
            answers = replace(arm, model=each).source(decoding.sampling).answers(prompts, respond.samples, **which)
            arm.members.setdefault(decoding.name, []).append(answers)
    return arm


def suites(cell: Cell, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> dict[str, Node]:
    """The end node of each suite that applies, by its module."""
    nodes = {suite.suite: suite.node(arm, vanilla) for suite in cell.evaluate.suites}
    return {name: node for name, node in nodes.items() if node}
