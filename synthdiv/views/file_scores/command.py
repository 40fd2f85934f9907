"""`synthdiv measure FILE`: columns of a file → groups of texts → scores → a table or JSON."""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from synthdiv.core.types import ConfigError
from synthdiv.views.layout import console, plural, text

if TYPE_CHECKING:
    from synthdiv.views.file_scores.group_scores import Groups

ALL = "all"  # the name of the one group without --by
NO_GROUP = "(none)"  # the group of rows without a value of --by
MANY_GROUPS = 1000  # a column with so many values may contain ids or texts
DESCRIPTION = """\
Print the diversity measures of the texts in a file: .jsonl, .json (a list of
objects), .csv or .tsv, each also with .gz or .zst, or .parquet; or in standard
input (-), as JSON. A cell may also hold a list of texts, a conversation
(`messages`: its last answer is the text) or a response of OpenAI's protocol;
a.b.0 names a value inside of column a.

  synthdiv measure answers.jsonl                   all rows as one group
  synthdiv measure answers.csv --by source         a group for each source
  synthdiv measure answers.parquet --by source --prompt id
                                                   sources that answered the
                                                   same prompts
"""
EPILOG = """\
Measures named @words and @texts are on an equal budget in all groups; the
others take every row, and some depend on how many and how long these are. Rows
are put into a random order (--seed) before budgets are filled, because files
are often sorted. A group that cannot fill a budget has a note, not a number:
give smaller budgets. The numbers of a group do not depend on other groups.

Rows whose --by cell is null, NaN, missing or empty are the group "(none)". A
cell of --column that is not a text is an error; an empty text is a text.

--json prints a list of objects with group, name, value, n, low, high, unit,
higher_is_better and note. An undefined value is null, an infinite one "inf".
"""


class Parser(argparse.ArgumentParser):
    """The options of a verb. Reports wrong arguments as every other command does: one line, without the usage."""

    def __init__(self, verb: str, description: str, epilog: str):
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(f"synthdiv {verb}", None, description, epilog, formatter_class=raw, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog.split()[-1]}: {message}; see `{self.prog} --help`")


def parser() -> Parser:
    parser = Parser("measure", DESCRIPTION, EPILOG)
    add, whole = parser.add_argument, whole_number
    add("file", metavar="FILE", type=Path, help="the file; - is standard input")
    add("--column", metavar="COLUMN", default="response", help="the column of texts (default: response)")
    add("--by", metavar="COLUMN", help="one group for each value of this column")
    add("--prompt", metavar="COLUMN",
        help="rows of equal value answer the same prompt: intervals keep them together, and budgets take the first of "
        "them (default: each row is its own prompt)")  # fmt: skip
    add("--words", metavar="N", type=whole(1), default=2500,
        help="budget of @words: N words of first texts, at most N / 50 of one (default: 2500)")  # fmt: skip
    add("--texts", metavar="T", type=whole(2), default=50,
        help="budget of @texts: the first T first texts of at least L words (default: 50)")  # fmt: skip
    add("--length", metavar="L", type=whole(1), default=50,
        help="words to which the texts of @texts are cut (default: 50)")  # fmt: skip
    add("--within", metavar="K", type=whole(2), default=2,
        help="budget of _within@texts: the first K texts of each prompt (default: 2)")  # fmt: skip
    add("--encoder", metavar="FOLDER", type=Path,
        help="also semantic measures, with the sentence-transformers model in this folder")  # fmt: skip
    add("--seed", metavar="N", type=whole(0), default=0,
        help="of the random order of rows, and of intervals (default: 0)")  # fmt: skip
    add("--json", action="store_true", help="print JSON instead of a table")
    return parser


def whole_number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: needs a whole number from {least} to 999999999")
        return int(text)

    return number


def measure_file(arguments: list[str]) -> int:
    """Run the command. ConfigError or DataError for options or a file that it cannot use."""
    options = parser().parse_args(arguments)
    require_encoder(options.encoder)
    from synthdiv.measures.budgets import TextBudget
    from synthdiv.views.file_scores.group_scores import scores_of
    from synthdiv.views.file_scores.score_table import print_scores

    log = console(error=True)
    with log.status(text(f"reading {options.file}"), spinner="line"):  # silent if stderr is not a terminal
        groups = read_groups(options)
    about = description(groups, options)
    with log.status(text(f"measuring {count_texts(groups)}"), spinner="line"):
        within = {"within": options.within, "draws": options.within}
        budget = TextBudget(words=options.words, texts=options.texts, length=options.length, **within)
        scores = scores_of(groups, budget, options.seed, options.encoder)
    sizes = {group: sum(map(len, answers.values())) for group, answers in groups.items()}
    print_scores(scores, sizes, about, options.json)
    return 0


def require_encoder(folder: Path | None) -> None:
    """ConfigError if `folder` has no model, before a large file is read."""
    if folder is None:
        return
    if not folder.is_dir():
        raise ConfigError(f"--encoder {folder}: no such folder; it needs a local copy of a sentence-transformers model")
    if not (folder / "config.json").is_file():
        needs = "it needs the folder of a sentence-transformers model"
        raise ConfigError(f"--encoder {folder}: config.json is missing; {needs}")


def read_groups(options: argparse.Namespace) -> Groups:
    from synthdiv.prompts.formats import read_columns
    from synthdiv.study.grid import confirm
    from synthdiv.views.file_scores.group_scores import shuffled_groups

    by, prompt = options.by, options.prompt
    fields = {"--column": options.column, "--by": by, "--prompt": prompt}
    rows = read_columns(options.file, {f"{option} {name}": name for option, name in fields.items() if name is not None})
    texts = rows.answers(options.column)
    names = [name or NO_GROUP for name in rows.labels(by)] if by is not None else [ALL] * len(texts)
    if (count := len(set(names))) >= MANY_GROUPS:
        question = f"--by {by}: has {count:,} different values in {len(texts):,} rows"
        confirm(question, "choose a column that names sources, or answer y at a terminal")
    counters = defaultdict[str, Iterator[int]](itertools.count)
    prompts: Sequence[Hashable] = [next(counters[name]) for name in names]  # no group changes the order of another
    if prompt is not None:
        prompts = rows.ids(prompt, ": it names no prompt; without --prompt each row is its own prompt")
    places = [place for place, samples in enumerate(texts) for _ in samples]
    flat = [text for samples in texts for text in samples]
    return shuffled_groups(flat, [names[i] for i in places], [prompts[i] for i in places], options.seed)


def description(groups: Groups, options: argparse.Namespace) -> list[str]:
    """The lines above the table: the texts, the budgets, and what an interval is."""
    group = "each group" if len(groups) > 1 else "the texts"
    prompts = f"prompts ({options.prompt})" if options.prompt is not None else "prompts, each row its own"
    by = f" by {options.by}" if options.by is not None else ""
    return [
        f"{options.file}: column {options.column}, {count_texts(groups)}{by}",
        f"@words: {options.words:,} words of {group}, of the first text of each prompt.",
        f"@texts: {options.texts:,} texts of {options.length:,} words, shorter ones passed over.",
        f"[low, high]: 95 % interval over {prompts}. n: prompts measured. ↑ ↓: the direction of more diversity.",
    ]


def count_texts(groups: Groups) -> str:
    total = sum(len(texts) for answers in groups.values() for texts in answers.values())
    return plural(total, "text") + ("" if list(groups) == [ALL] else f" in {plural(len(groups), 'group')}")
