"""What the rounds of a cell are made of: the members of its population and their prompts; and what cannot be."""

from __future__ import annotations

from dataclasses import dataclass, replace

from synthdiv.core.stage import Node
from synthdiv.evaluate.verdicts import JudgeModel
from synthdiv.generate.source import Source
from synthdiv.generate.spec import Sampling
from synthdiv.mix.round_rows import RoundFilter
from synthdiv.prompts.split import rank
from synthdiv.study.config import Cell, Kind
from synthdiv.study.generators import Student
from synthdiv.study.rounds import Data, Init, Lineage, Real, RoundPrompts, Writers
from synthdiv.train.recipe import Method
from synthdiv.train.schedule import Match
from synthdiv.train.tokens import Tokens
from synthdiv.train.train import Train


@dataclass(frozen=True)
class Block:
    """The prompts of a round: `rows` of the train prompts from `first` on, those of human rows from `real_first` on.
    The grid of its shards covers `grid_rows`, the further prompts of the block among them."""

    rows: int
    grid_rows: int
    first: int = 0
    real_first: int = 0
    round: int = 0


def block_of(cell: Cell, number: int, member: int) -> Block | None:
    """The prompts of a round for a member; None: those of the mix."""
    rounds, rows = cell.rounds, cell.mix.rows or cell.prompts.train_rows
    number = 0 if rounds.writers is Writers.initial else number
    segmented = rounds.lineage is Lineage.segmented
    if not number and not segmented:
        return None
    parts, part = (rounds.size, member) if segmented else (1, 0)
    width = rows // parts + cell.mix.further(rows // parts)
    first = width * (part + (number * parts if rounds.prompts is RoundPrompts.fresh_block else 0))
    return Block(rows // parts, width, first, width * part if rounds.real is Real.same else first, number)


def population(cell: Cell) -> list[tuple[Student, Train]]:
    """The base and the recipe of each member."""
    rounds, train = cell.rounds, cell.train
    seeds = [train.seed, *(rank(train.seed, "member", number) % 2**32 for number in range(1, rounds.seeds))]
    if rounds.seeds > 1:
        return [(cell.student, replace(train, seed=seed)) for seed in seeds]
    return [(student, train) for student in (cell.student, *rounds.students)]


def of_member(cell: Cell) -> Cell:
    """The cell with the base and the recipe of the member that it evaluates."""
    student, train = population(cell)[cell.rounds.member]
    return replace(cell, student=student, train=train)


def fine_tuned(prompts: Node, base: Node, recipe: Train, mix: Node, start: Node | None = None) -> Node:
    """A student trained on a mix, from `start` or from its base."""
    tokens = Node(Tokens(), {"student": base, "mix": mix, "prompts": prompts})
    return Node(recipe, {"student": start or base, "mix": mix, "prompts": prompts, "tokens": tokens})


def decoded(cell: Cell, number: int) -> Cell:
    """The cell whose sources answer as if they had sampled from themselves `number` times, without a training."""
    sharper = cell.rounds.sampling.temperature**number
    models = [
        replace(each, sampling=replace(each.sampling, temperature=each.sampling.temperature * sharper))
        for each in cell.generators.models
    ]
    return replace(cell, generators=replace(cell.generators, models=models))


def answering(cell: Cell) -> Sampling:
    """How students answer train prompts."""
    sampling, decodings = cell.rounds.sampling, cell.evaluate.respond.decodings
    usual = decodings[0].sampling.max_new_tokens if decodings else Sampling().max_new_tokens
    return Sampling(**vars(sampling) | {"max_new_tokens": sampling.max_new_tokens or usual})


def verifies(cell: Cell) -> bool:
    """Whether the first judge can rate quality."""
    return any(
        JudgeModel(Source(each.name, each.backend)).judges(cell.judge.rubrics.quality, cell.prompts.toy is not None)
        for each in cell.judge.models[:1]
    )


def problems_of_rounds(cell: Cell) -> list[str]:
    """What the rounds of a resolved cell cannot be."""
    rounds, mix, size, have = cell.rounds, cell.mix, cell.rounds.size, cell.prompts.train_rows
    rows, segmented, later = mix.rows or have, rounds.lineage is Lineage.segmented, rounds.round > 0
    fresh = rounds.prompts is RoundPrompts.fresh_block and rounds.writers is not Writers.initial
    blocks, parts = rounds.round + 1 if fresh else 1, size if segmented else 1
    further = parts * mix.further(rows // parts)
    most = parts * int(have // (blocks * parts) / (1 + mix.spare if further else 1))
    beside = f" and {further:,} further ones (mix.spare={mix.spare:g})" if further else ""
    law = mix.kind is Kind.single and all(source.law for source in cell.generators.models)
    steps = "gives rounds other numbers of rows, and all train equally many steps; set train.match=steps"
    by_rows, initial = cell.train.match is Match.rows, rounds.writers is Writers.initial
    real = mix.real_share or mix.real_rows or rounds.real_share
    always = {f"rounds.member={rounds.member}: the population has members 0 to {size - 1}": rounds.member >= size}
    rules = {
        f"rounds.round={rounds.round}: {blocks} block{'s' * (blocks > 1)} of {rows:,} fresh prompts{beside} need "
        f"{blocks * (rows + further):,} train prompts and there are {have:,}; set mix.rows={most}"
        f"{', or rounds.prompts=same' * (blocks > 1)}":
            (blocks > 1 or (segmented and further)) and blocks * (rows + further) > have,
        f"mix.spare={mix.spare:g}: rounds.filter={rounds.filter.value} leaves out a share of all that students wrote, "
        "and these rows have no replacement; set mix.spare=0, or a filter of the mix too":
            later and mix.spare and not further and rounds.filter is not RoundFilter.none,
        "rounds.students, rounds.seeds: a population is of families or of seeds; give one of the two":
            rounds.students and rounds.seeds > 1,
        f"mix.rows={rows}: of {size} members of a pool each writes a part; set mix.rows={size} or more":
            later and rounds.lineage is Lineage.pooled and rows < size,
        f"rounds.lineage={rounds.lineage.value}: needs a population; set rounds.seeds or rounds.students":
            rounds.lineage is not Lineage.single and size == 1,
        f"rounds.data={rounds.data.value}: {steps}": later and by_rows and rounds.data is Data.accumulate,
        f"rounds.filter={rounds.filter.value}: {steps}": later and by_rows and rounds.filter is not RoundFilter.none,
        f"rounds.lineage=segmented: {steps}": segmented and by_rows,
        f"mix.rows={rows}: {size} segments of equal length need a multiple of {size}": segmented and rows % size,
        "mix.real_rows: a segment has a share of human rows; set mix.real_share": segmented and mix.real_rows,
        "mix.real_rotation: blocks of rounds have fixed places; prompts.seed gives them other prompts":
            later and mix.real_rotation,
        "rounds.real_share: the prompts have no human answers (prompts.table.columns.response=null)":
            later and rounds.real_share and not cell.prompts.human,
        "rounds.writers=initial: needs rounds.init=continue and rounds.data=replace, or nothing changes":
            initial and (rounds.init is Init.base or rounds.data is not Data.replace),
        "rounds.writers=decoding: is exact for one source by law at top_p=1, without human rows; choose mix=single "
        "generators=toy rounds.sampling.top_p=1 mix.real_share=0 rounds.real_share=0":
            rounds.writers is Writers.decoding and (not law or real or any(
                each.top_p < 1 for each in (rounds.sampling, *(source.sampling for source in cell.generators.models)))),
        "rounds.init=continue, train.method=qlora: an adapter cannot be merged into 4-bit weights; choose "
        "train.method=lora or full": later and rounds.init is Init["continue"] and cell.train.method is Method.qlora,
        "rounds.filter=verifier: needs a first judge that rates quality; choose judge=toy or judge=panel":
            rounds.filter is RoundFilter.verifier and not verifies(cell),
    }  # fmt: skip
    return [text for text, wrong in (always | (rules if mix.kind is not Kind.none else {})).items() if wrong]
