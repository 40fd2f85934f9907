"""What `synthdiv measure` takes. Imports nothing heavy: its `--help` is read often."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from synthdiv.core.types import ConfigError

ENOUGH = 1000  # words; a smaller group does not set the budget of the others
ABOUT = """\
Print the diversity measures of the texts in a file: .jsonl, .json (a list of
objects), .csv or .tsv, each also with .gz, or .parquet.

  synthdiv measure answers.jsonl                   all rows as one group
  synthdiv measure answers.csv --by source         a group for each source
  synthdiv measure answers.parquet --by source --prompt id
                                                   sources that answered the
                                                   same prompts
"""
AFTER = """\
Measures named @words and @texts are on an equal budget in all groups; the
others take every row, and some depend on how many and how long these are. Rows
are put into a random order (--seed) before budgets are filled, because files
are often sorted. A group that cannot fill a budget has a note, not a number.

Rows whose --by cell is null, missing or empty are the group "(none)". A cell
of --column that is no text is an error; an empty text is a text.

--json prints a list of objects with group, name, value, n, low, high, unit,
higher_is_better and note. What is undefined is null, what is infinite "inf".
"""


class Parser(argparse.ArgumentParser):
    """Mistakes are said as everywhere in synthdiv, in one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"measure: {message}; `{self.prog} --help` tells what it takes")


def parser() -> Parser:
    parser = Parser(
        prog="synthdiv measure",
        description=ABOUT,
        epilog=AFTER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def add(name: str, help: str, **rest: object) -> None:
        parser.add_argument(name, help=help, **rest)  # type: ignore[arg-type]

    add("file", "the file", metavar="FILE", type=Path)
    add("--column", "the column of texts (default: response)", default="response")
    add("--by", "one group for each value of this column", metavar="COLUMN")
    add(
        "--prompt",
        "rows of equal value answer the same prompt: intervals keep them together, and @texts takes the prompts that "
        "all groups have (default: each row is its own prompt)",
        metavar="COLUMN",
    )
    told = f"(default: the words of the smallest group that has {ENOUGH:,})"
    add("--words", f"budget of @words: the first N words of each group {told}", metavar="N", type=at_least(1))
    told = "budget of @texts: the first L words of each text; shorter ones are left out (default: 50)"
    add("--texts", told, metavar="L", type=at_least(1), default=50)
    told = "also semantic measures, with the sentence-transformers model in this folder"
    add("--encoder", told, metavar="FOLDER", type=Path)
    add(
        "--seed", "of the random order of rows, and of intervals (default: 0)", metavar="N", type=at_least(0), default=0
    )
    add("--json", "print JSON and no table", action="store_true")
    return parser


def at_least(smallest: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text!r}: needs a whole number from {smallest} to 999999999")
        return int(text)

    return whole_number
