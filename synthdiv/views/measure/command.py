"""`synthdiv measure FILE`: the columns of a file → groups of texts on one budget → scores → a table, or JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
from collections.abc import Hashable, Mapping, Sequence

from synthdiv.core.types import ConfigError, Score
from synthdiv.views.measure.options import ENOUGH, parser

ALL = "all"  # the one group without --by
MANY = 1000  # groups; more than that is a column of ids or of texts
Arms = Mapping[str, Mapping[Hashable, Sequence[str]]]


def measure_file(arguments: list[str]) -> int:
    """Run the verb. What is wrong with the options or the file is a ConfigError or a DataError."""
    asked = parser().parse_args(arguments)
    if asked.encoder is not None:
        from synthdiv.views.measure.encode import require_encoder

        require_encoder(asked.encoder)
    from rich.console import Console

    log = Console(stderr=True)
    with log.status(f"reading {asked.file}", spinner="line"):  # silent where stderr is no terminal
        arms = read_arms(asked)
        words, why = (asked.words, "") if asked.words else words_budget(arms)
    about = told_about(arms, words, why, asked)
    with log.status(f"measuring {texts_of(arms)}", spinner="line"):
        scores = scored(arms, words, asked)
    if asked.json:
        print(json_text(scores))
        log.print("\n".join(about), markup=False, highlight=False, soft_wrap=True)
    else:
        from synthdiv.views.measure.output import show

        sizes = {group: sum(map(len, answers.values())) for group, answers in arms.items()}
        show(scores, sizes, about, Console())
    return 0


def read_arms(asked: argparse.Namespace) -> Arms:
    from synthdiv.views.measure.read import read_columns

    options = {"--column": asked.column, "--by": asked.by, "--prompt": asked.prompt}
    columns = read_columns(asked.file, {option: name for option, name in options.items() if name is not None})
    texts = columns.texts(asked.column)
    groups = columns.groups(asked.by) if asked.by is not None else [ALL] * len(texts)
    if len(set(groups)) > MANY:
        most = f"at most {MANY:,} groups can be compared; choose a column that names sources"
        raise ConfigError(f"--by {asked.by}: has {len(set(groups)):,} different values in {len(texts):,} rows; {most}")
    prompts: Sequence[Hashable] = columns.prompts(asked.prompt) if asked.prompt is not None else range(len(texts))
    return arms_of(texts, groups, prompts, asked.seed)


def arms_of(texts: Sequence[str], groups: Sequence[str], prompts: Sequence[Hashable], seed: int) -> Arms:
    """Group → prompt → its texts. Prompts are in a random order, one for all groups, and so are the texts of each."""
    from synthdiv.views.report.labels import natural

    order = random.Random(seed)
    distinct = list(dict.fromkeys(prompts))
    order.shuffle(distinct)
    place = {prompt: index for index, prompt in enumerate(distinct)}
    rows = list(range(len(texts)))
    order.shuffle(rows)
    arms: dict[str, dict[Hashable, list[str]]] = {group: {} for group in sorted(set(groups), key=natural)}
    for row in sorted(rows, key=lambda row: place[prompts[row]]):
        arms[groups[row]].setdefault(prompts[row], []).append(texts[row])
    return arms


def words_budget(arms: Arms) -> tuple[int, str]:
    """The words of the smallest group that has enough, and how to say so; groups below have notes for numbers."""
    from synthdiv.measures.words import words

    count = {name: sum(len(words(text)) for texts in arm.values() for text in texts) for name, arm in arms.items()}
    some = {group: number for group, number in count.items() if number}
    if not some:
        return 1, " (there is no word in any text)"
    enough = {group: number for group, number in some.items() if number >= ENOUGH}
    smallest = min(enough or some, key=some.__getitem__)
    if len(arms) == 1:
        why = ", which are all: give --words N to compare with other files"
    else:
        short = len(arms) - len(enough or some)
        why = f", all that {smallest} has" + (f"; {short} smaller groups have fewer" if short > 1 else "")
        why += "; one smaller group has fewer" if short == 1 else ""
    return some[smallest], why + ("" if enough else f" (no group has {ENOUGH:,}: too few to say much)")


def scored(arms: Arms, words: int, asked: argparse.Namespace) -> dict[str, list[Score]]:
    from synthdiv.measures.budgets import lexical_arm_scores

    paired = asked.prompt is not None
    scores = lexical_arm_scores(arms, words, asked.texts, asked.seed, paired=paired)
    if asked.encoder is not None:
        from synthdiv.views.measure.encode import semantic_groups

        more = semantic_groups(arms, asked.encoder, asked.texts, asked.seed, paired=paired)
        scores = {group: [*own, *more[group]] for group, own in scores.items()}
    return scores


def told_about(arms: Arms, words: int, why: str, asked: argparse.Namespace) -> list[str]:
    """What stands above the table: the texts, the budgets, and what an interval is."""
    group = "each group" if len(arms) > 1 else "the texts"
    over = f"prompts ({asked.prompt})" if asked.prompt is not None else "prompts, each row its own"
    return [
        f"{asked.file}: column {asked.column}, {texts_of(arms)}" + (f" by {asked.by}" if asked.by is not None else ""),
        f"@words: {words:,} words of {group}{why}.",
        f"@texts: {asked.texts:,} words of each text, shorter ones left out.",
        f"[low, high]: 95 % interval over {over}. n: how many entered. ↑ ↓: which way is more diverse.",
    ]


def texts_of(arms: Arms) -> str:
    total = sum(len(texts) for answers in arms.values() for texts in answers.values())
    texts = f"{total:,} text{'s' if total > 1 else ''}"
    return texts if list(arms) == [ALL] else f"{texts} in {len(arms):,} group{'s' if len(arms) > 1 else ''}"


def json_text(scores: Mapping[str, list[Score]]) -> str:
    """NaN is null and an infinity a string, as in `scores.json` of a suite."""
    from synthdiv.evaluate.suite import json_number

    records = [
        {"group": group}
        | {
            key: json_number(value) if isinstance(value, float) else value
            for key, value in dataclasses.asdict(score).items()
        }
        for group, own in scores.items()
        for score in own
    ]
    return json.dumps(records, indent=1, allow_nan=False)
