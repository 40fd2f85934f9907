"""A file of verdicts and labels → pairs or ratings of one judge. Errors name the line and the column."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import ConfigError, DataError
from synthdiv.measures.estimates import prompt_means
from synthdiv.measures.pairwise import Pairs
from synthdiv.prompts.formats import FileRows, read_columns
from synthdiv.views.layout import plural

FIRST_SHOWN = {"0": True, "1": False}  # cells of the column --order


@dataclass(frozen=True, eq=False)
class Labelled:
    """The rows of a file. `verdict` (n,) and each of `labels` are P(first wins) for pairs, else ratings; NaN for none.
    `lengths` (n, texts) are characters of the texts; `shown_first` (n,) says whether the first author's text was shown
    first; both None if the file does not have them. `remarks` are lines on what is unusual in the file."""

    prompt: list[Hashable]
    authors: list[list[str]]
    verdict: np.ndarray
    labels: dict[str, np.ndarray]
    lengths: np.ndarray | None
    shown_first: np.ndarray | None
    remarks: list[str]

    def take(self, rows: list[int]) -> Labelled:
        prompt, authors = [self.prompt[row] for row in rows], [self.authors[row] for row in rows]
        lengths, shown_first = (None if each is None else each[rows] for each in (self.lengths, self.shown_first))
        labels = {name: label[rows] for name, label in self.labels.items()}
        return Labelled(prompt, authors, self.verdict[rows], labels, lengths, shown_first, self.remarks)

    def labelled(self, name: str | None = None) -> int:
        """The items with a verdict and a label, of this column or of any. A pair in both orders is one item."""
        labels = self.panel() if name is None else self.labels[name]
        rows = np.flatnonzero(~np.isnan(self.verdict + labels))
        return len(
            {(self.prompt[row], *sorted(self.authors[row])) if len(self.authors[row]) == 2 else row for row in rows}
        )

    def panel(self) -> np.ndarray:
        """The mean of all labels (n,), NaN for a row without any."""
        if not self.labels:
            return np.full(len(self.verdict), math.nan)
        labels = np.array([*self.labels.values()])
        known = (~np.isnan(labels)).sum(axis=0)
        return np.where(known > 0, np.nansum(labels, axis=0) / np.maximum(known, 1), math.nan)


def read_labelled(options: argparse.Namespace) -> Labelled:
    """Read the columns that the options name. ConfigError or DataError for what cannot be used."""
    authors = options.pair or ([options.author] if options.author else [])
    named = {"verdict": [options.verdict], "label": options.label, "pair": options.pair or [], "text": options.text}
    named |= {option: [getattr(options, option)] for option in ("prompt", "author", "order")}
    column_names = {f"--{option} {name}": name for option, names in named.items() for name in names if name is not None}
    rows = read_columns(options.file, column_names)
    read = pair_values if options.pair else rating_values
    verdict, remark = read(rows, options.verdict, options.values)
    read_labels = {name: read(rows, name, options.values) for name in options.label}
    labels = {name: label for name, (label, _) in read_labels.items()}
    remarks = [line for line in (remark, *(line for _, line in read_labels.values())) if line]
    lengths, shown_first = None, None
    if options.text:
        texts = [[answers[0] for answers in rows.answers(name)] for name in options.text]
        empty = sum(not text.strip() for column in texts for text in column)
        count = f"{empty:,} of {len(texts) * len(texts[0]):,}"
        remarks += [f"{count} texts are empty; they count, with length 0."] if empty else []
        lengths = np.array([[len(text) for text in column] for column in texts], dtype=float).T
    if options.order is not None:
        needs = "; it needs 0 (first shown first) or 1"
        cells = rows.require(options.order, lambda cell: str(cell) in FIRST_SHOWN, needs)
        shown_first = np.array([FIRST_SHOWN[str(cell)] for cell in cells])
    prompt = rows.ids(options.prompt) if options.prompt is not None else list(range(len(verdict)))
    names = [list(names) for names in zip(*(rows.ids(name) for name in authors), strict=True)]
    labelled = Labelled(list(prompt), names or [[] for _ in prompt], verdict, labels, lengths, shown_first, remarks)
    return refuse_useless(without_self_pairs(labelled, remarks) if options.pair else labelled, rows, options)


def pair_values(rows: FileRows, column: str, values: Sequence[str]) -> tuple[np.ndarray, str]:
    """P(first wins) of each row, and how many cells are no verdict. Without `values`, cells are numbers from 0 to 1."""
    cells = rows.labels(column)
    if not values:
        needs = "; it needs P(first wins), from 0 to 1, or --values FIRST SECOND [TIE …]"
        rows.require(column, lambda cell: is_blank(cell) or 0 <= as_number(str(cell)) <= 1, needs)
        return np.array([float(cell) if cell else math.nan for cell in cells]), ""
    first, second, *ties = values
    known = {first: 1.0, second: 0.0} | dict.fromkeys(ties, 0.5)
    ends = as_number(first), as_number(second)

    def share(cell: str) -> float:
        number = as_number(cell)
        exact = [value for name, value in known.items() if cell == name or number == as_number(name)]
        between = (ends[1] - number) / (ends[1] - ends[0])
        return exact[0] if exact else between if 0 <= between <= 1 else math.nan

    shares = np.array([share(cell) for cell in cells])
    other = Counter(cell for cell, value in zip(cells, shares, strict=True) if cell and math.isnan(value))
    if len(other) and np.isnan(shares).all():
        raise DataError(
            f"--values {' '.join(values)}: no cell of column {column} is one; it has {', '.join(list(other)[:5])}"
        )
    few = f", such as {next(iter(other))!r}" if other else ""
    count = plural(sum(other.values()), "cell")
    return shares, f"{count} of {column}: none of {', '.join(values)}{few}." if other else ""


def rating_values(rows: FileRows, column: str, values: Sequence[str]) -> tuple[np.ndarray, str]:
    """The ratings of each row; null and empty cells are NaN."""
    if values:
        raise ConfigError("--values: is for pairs (--pair FIRST SECOND); ratings are numbers")
    rows.require(column, lambda cell: is_blank(cell) or math.isfinite(as_number(str(cell))), "; it needs a number")
    ratings = np.array([math.nan if is_blank(cell) else float(cell) for cell in rows.cells[column]])
    missing = int(np.isnan(ratings).sum())
    return ratings, f"{plural(missing, 'row')} without a number in {column}." if missing else ""


def is_blank(cell: Any) -> bool:
    return cell is None or str(cell).strip() == ""


def as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def without_self_pairs(rows: Labelled, remarks: list[str]) -> Labelled:
    """The pairs of two different authors; the remark counts the others, which say nothing of either."""
    usable = [row for row, (first, second) in enumerate(rows.authors) if first != second]
    if len(usable) == len(rows.authors):
        return rows
    if not usable:
        raise DataError(f"--pair: every pair is of {rows.authors[0][0]!r} with itself; two authors are needed")
    remarks.append(f"Left out: {plural(len(rows.authors) - len(usable), 'pair')} of an author with itself.")
    return rows.take(usable)


def refuse_useless(labelled: Labelled, rows: FileRows, options: argparse.Namespace) -> Labelled:
    """Refuse what would make a table of dashes; remark on authors with unequal numbers of texts and on ties alone."""
    known = labelled.verdict[~np.isnan(labelled.verdict)]
    if not len(known):
        raise DataError(f"{rows.source}: column {options.verdict} holds no verdict")
    if options.pair and (known == 0.5).all():
        labelled.remarks.append("All verdicts are ties: the judge takes no side.")
    counts = Counter(name for names in labelled.authors for name in names)
    if options.judge_author is not None and options.judge_author not in counts:
        names = ", ".join(sorted(counts)[:20])
        raise ConfigError(f"--judge-author {options.judge_author}: is no author of {rows.source}; it has {names}")
    if len(set(counts.values())) > 1:
        low, high = (pick(counts, key=lambda name: counts[name]) for pick in (min, max))
        texts = f"from {counts[low]:,} ({low}) to {counts[high]:,} ({high})"
        labelled.remarks.append(f"{len(counts)} authors have unequal numbers of texts, {texts}.")
    return labelled


def pairs_of(rows: Labelled) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """One row for each pair of answers, with means over orders and repeated rows; and the verdicts P(first wins) where
    the first was shown first, and second: NaN where unknown. Where most pairs were judged in both orders, one with a
    verdict in one order has none, and a remark counts these. Lengths are differences in characters."""
    index: dict[tuple[Hashable, ...], int] = {}
    turned = np.array([first > second for first, second in rows.authors])
    number = np.array([index.setdefault((prompt, *sorted(names)), len(index))
                       for prompt, names in zip(rows.prompt, rows.authors, strict=True)])  # fmt: skip
    wins, panel = (np.where(turned, 1 - part, part) for part in (rows.verdict, rows.panel()))
    order = np.full(len(wins), math.nan) if rows.shown_first is None else (rows.shown_first != turned).astype(float)
    forward, backward = (prompt_means(np.where(order == side, wins, math.nan), number, len(index)) for side in (1, 0))
    both, paired = prompt_means(wins, number, len(index)), ~np.isnan(forward + backward)
    if paired.sum() * 2 >= len(paired):  # a file in both orders: one order alone would bring its position bias
        both, single = (forward + backward) / 2, int((~np.isnan(both) & ~paired).sum())
        rows.remarks.extend([f"Left out: {plural(single, 'pair')} with a verdict in one order only."] if single else [])
    gaps = np.full(len(wins), math.nan) if rows.lengths is None else rows.lengths[:, 0] - rows.lengths[:, 1]
    length = prompt_means(np.where(turned, -gaps, gaps), number, len(index))
    label = prompt_means(panel, number, len(index))
    names = np.array([[str(part) for part in key[1:]] for key in index], dtype=object)
    prompt = np.array([str(key[0]) for key in index], dtype=object)
    return Pairs(prompt, names[:, 0], names[:, 1], both, label, length, 2 * label - 1), forward, backward
