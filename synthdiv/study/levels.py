"""The graph of a level of diversity: what its rows are made from; and of a temperature that is tuned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from synthdiv.core.stage import Node
from synthdiv.evaluate.likelihood import Likelihood, Target
from synthdiv.generate.generate import Split
from synthdiv.generate.source import Source
from synthdiv.mix.matched import PROMPTS, MatchedTemperature
from synthdiv.mix.mix import Mix
from synthdiv.mix.selection import Selection
from synthdiv.mix.sentence_vectors import Vectors
from synthdiv.mix.written import REPLACED, PairPrompts, Written
from synthdiv.study.config import By, Cell, Diversity, Kind
from synthdiv.study.generators import Generator
from synthdiv.study.lineage import Block

Part = Callable[..., Node]  # a mix without human rows, with other fields of its `MixSpec`


def level_inputs(
    cell: Cell, mix: Mix, mixed: Callable[[Cell], Node], source: Callable[[Cell, Generator], Source]
) -> dict[str, Node]:
    """The input `level` of a mix, or nothing. `mixed` and `source` are those of the pipeline."""
    diversity = cell.mix.diversity_of_level()
    full = diversity and diversity.by is By.paraphrase and cell.mix.level == 1  # no pair is replaced
    if not mix.sources or full or not diversity or diversity.by is By.sampling:
        return {}
    none = replace(cell.mix, real_share=0.0, real_rows=None, spare=0.0, level=None, diversity=None)

    def part(**changes: Any) -> Node:
        return mixed(replace(cell, mix=replace(none, **changes)))

    mix.level = True
    if diversity.by is By.selection:
        return {"level": selected_rows(cell, mix, part, diversity)}
    one = next(each for each in cell.generators.models if each.name == mix.sources[0])
    return {"level": written_rows(cell, mix, part, diversity, source(cell, one))}


def selected_rows(cell: Cell, mix: Mix, part: Part, diversity: Diversity) -> Node:
    """Rows selected from mixes of all prompts, which are filtered as the mix is."""
    allocation, have, pools = mix.allocation(), cell.prompts.train_rows, range(cell.generators.samples)
    human, first = allocation.count(-1), mix.positions()[allocation.index(-1)] if -1 in allocation else 0
    without = [first, human + len(mix.spares()), have]
    stage = Selection(mix.rows - human, len(pools), cell.mix.level, without, diversity.near, diversity.pattern)
    stage.seed, prompts = mix.real_rotation, Node(cell.prompts)
    inputs = {"prompts": prompts, **{str(at): part(rows=have, real_rotation=0, sample=at) for at in pools}}
    if diversity.encoder and (stage.level is not None or stage.near < 1):  # random rows need no vectors
        stage.encoded, encoder = True, Node(diversity.encoder)
        for at in pools:
            inputs[f"vectors/{at}"] = Node(Vectors(), {"answers": inputs[str(at)], "encoder": encoder})
        if stage.near < 1:
            inputs["target"] = Node(Vectors(True, split=Split.target), {"prompts": prompts, "encoder": encoder})
    return Node(stage, inputs)


def matched_temperature(cell: Cell, one: Source, mixed: Callable[[Cell, Block], Node], student: Node) -> Node:
    """The temperature that gives answers of one source the likelihood of several sources under the vanilla student, on
    the first train prompts: the same for every size, share and rotation of the mix's rows."""
    rows = min(PROMPTS, cell.prompts.train_rows)
    alone = replace(cell.mix, real_share=0.0, real_rows=None, real_rotation=0, spare=0.0)
    how = Likelihood(Target.authors, 0, cell.evaluate.precision, cell.evaluate.batch_tokens, 1)
    inputs = {"prompts": Node(cell.prompts), "model": student}

    def likelihood(**changes: Any) -> Node:
        answers = mixed(replace(cell, mix=replace(alone, **changes)), Block(rows, rows))
        return Node(how, {**inputs, "0": answers})

    stage, scored = MatchedTemperature(sorted({*cell.mix.temperatures})), {"multi": likelihood(kind=Kind.multi)}
    stage.usual, stage.tolerance = one.sampling.temperature, cell.mix.tolerance
    for temperature in stage.temperatures:
        at = Diversity(By.sampling, low=replace(one.sampling, temperature=temperature))
        scored[f"{temperature:g}"] = likelihood(kind=Kind.single, source=one.name, level=0.0, diversity=at)
    return Node(stage, scored)


def written_rows(cell: Cell, mix: Mix, part: Part, diversity: Diversity, one: Source) -> Node:
    """Pairs that a source writes on topics, or as paraphrases of the pairs that stay."""
    rows, level, study = mix.rows - mix.allocation().count(-1), cell.mix.level or 0.0, cell.prompts
    topics, prompts = diversity.topics_at(level), {"prompts": Node(cell.prompts)}
    new, further = rows if topics else round(REPLACED * (1 - level) * rows), math.ceil(mix.spare * rows)
    staying = {} if topics else {"mix": part(rows=rows - new)}
    pairs = PairPrompts(
        study.system, study.date, study.template, None, new if topics else rows - new, diversity.wording, topics
    )
    which = {"split": Split.test, "rows": pairs.rows, "subset": pairs.rows}
    samples = diversity.tries * math.ceil(new / pairs.rows) + math.ceil(diversity.tries * further / pairs.rows)
    answers = one.answers(Node(pairs, prompts | staying), samples, **which)
    return Node(Written(rows, not topics, further), {**prompts, "answers": answers, **staying})
