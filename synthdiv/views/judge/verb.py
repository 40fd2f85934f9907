"""`synthdiv judge FILE`: labelled verdicts → how far the judge can be trusted → a table or JSON, and a calibration."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from synthdiv.core.types import ConfigError
from synthdiv.views.file_scores.command import Parser
from synthdiv.views.layout import console, text

DESCRIPTION = """\
Compare the verdicts of a judge with labels before it is trusted. FILE is a
table as `synthdiv measure` reads it: .jsonl, .json, .csv, .tsv (also .gz or
.zst) or .parquet. A row is a pair of answers (--pair) or a rated answer.

  synthdiv judge pairs.jsonl --judge gpt-4 --pair model_a model_b
      --verdict winner --values model_a model_b tie --label human
  synthdiv judge ratings.csv --judge gpt-4 --rubric harmfulness --label human
"""
EPILOG = """\
In a file of pairs, verdict and labels say which of the two authors wins,
whichever text was shown first; --order says which was. Without --values they
are numbers, P(first wins). Numbers between two --values are probabilities.
Rows of one prompt and the same authors are one pair, as both orders are.

With labels and --identity, the calibration is written to judges/ in the folder
runtime.outputs=FOLDER (default: outputs), where reports read it; a judge is
validated from 200 labelled items on. docs/judges.md explains every score.
"""


def parser() -> Parser:
    judge = Parser("judge", DESCRIPTION, EPILOG)
    add = judge.add_argument
    add("file", metavar="FILE", type=Path, help="table of verdicts and labels, or - for JSON in standard input")
    add("--judge", metavar="NAME", required=True, help="the judge whose verdicts these are")
    add("--identity", metavar="ID", help="what the judge is: its 12 characters in the report of a sweep that it judged")
    add("--rubric", metavar="NAME", help="its rubric (default: preference for pairs, quality for ratings)")
    add("--verdict", metavar="COLUMN", default="verdict", help="verdicts of the judge (default: verdict)")
    add("--label", metavar="COLUMN", action="append", default=[], help="verdicts of humans or of another judge; repeat")
    add("--prompt", metavar="COLUMN", help="ids of prompts, the unit of intervals (default: each row is its author)")
    add("--pair", metavar="COLUMN", nargs=2, help="the authors of the two answers of a pair, first and second")
    add("--author", metavar="COLUMN", help="the author of a rated answer")
    add(
        "--values", metavar="CELL", nargs="+", default=[], help="cells for `first wins`, `second wins` and ties, if any"
    )
    add("--order", metavar="COLUMN", help="0 where the first author's text was shown first, 1 where the second's was")
    add("--text", metavar="COLUMN", nargs="+", default=[], help="texts, one or, for pairs, two: lengths in characters")
    add("--judge-author", metavar="AUTHOR", help="the author whose texts are the judge's own")
    add("--json", action="store_true", help="print JSON instead of a table")
    return judge


def judge_file(arguments: list[str], outputs: Path) -> int:
    """Run the command. ConfigError or DataError for options or a file that it cannot use."""
    options = parser().parse_args(arguments)
    refuse_options(options)
    from synthdiv.views.calibration import Calibration, write_calibration
    from synthdiv.views.file_scores.score_table import print_scores, records
    from synthdiv.views.judge.judge_scores import JUDGE, pair_scores, rating_scores
    from synthdiv.views.judge.labelled import read_labelled

    log = console(error=True)
    with log.status(text(f"reading {options.file}"), spinner="line"):
        rows = read_labelled(options)
    with log.status(text(f"comparing {len(rows.verdict):,} verdicts"), spinner="line"):
        scores = (pair_scores if options.pair else rating_scores)(rows, options.judge_author)
    labels = {name: rows.labelled(name) for name in options.label}
    rubric = options.rubric or ("preference" if options.pair else "quality")
    about = [f"{options.file}: {len(rows.verdict):,} verdicts of {options.judge}, rubric {rubric}.", *rows.remarks]
    if labels:
        judged = {each.pop("name"): each for each in records(scores[JUDGE])}
        names = (options.identity or "", options.judge, rubric, options.file.name)
        measured = Calibration(*names, labels, rows.labelled(), judged)
        where = write_calibration(outputs, measured) if options.identity else "No --identity, so no report shows this"
        about += [f"{where}: {measured.summary()}"]
    else:
        about += ["No --label: without labels the judge stays unvalidated, and no calibration is written."]
    about += ["[low, high]: 95 % interval over prompts. n: prompts measured."] * (not options.json)
    print_scores(scores, {}, about, options.json)
    return 0


def refuse_options(options: argparse.Namespace) -> None:
    """ConfigError for options that contradict each other, before the file is read."""
    texts = 2 if options.pair else 1
    if options.text and len(options.text) != texts:
        columns = " ".join(options.text)
        raise ConfigError(
            f"--text {columns}: {'pairs need two columns' if options.pair else 'a rating needs one column'}"
        )
    if options.pair and options.author:
        raise ConfigError(f"--author {options.author}: is for ratings; --pair names the authors of pairs")
    if options.judge_author and not (options.pair or options.author):
        needed = "the column of authors, --pair FIRST SECOND or --author COLUMN"
        raise ConfigError(f"--judge-author {options.judge_author}: needs {needed}")
    if options.identity is not None and not re.fullmatch("[0-9a-f]{12}", options.identity):
        raise ConfigError(f"--identity {options.identity}: needs the 12 characters that a report has beside the judge")
    if options.order and not options.pair:
        raise ConfigError(f"--order {options.order}: is for pairs (--pair FIRST SECOND)")
    if options.order and not options.prompt:
        raise ConfigError(f"--order {options.order}: needs --prompt COLUMN, so that both orders of a pair are one item")
    if len(options.values) == 1 or len({*options.values}) < len(options.values):
        cells = " ".join(options.values)
        raise ConfigError(f"--values {cells}: needs the cells for first wins and second wins, then of ties, each once")
