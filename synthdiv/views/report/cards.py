"""A data card for each mix of a sweep: sources, licences, tokens, filters, overlap, diversity, quality, a few rows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthdiv.core.ledger import CellRecord, Ledger
from synthdiv.core.types import Artifact, Score
from synthdiv.measures.budgets import TextBudget, texts_estimates, words_estimates
from synthdiv.measures.word_arm import WordArm
from synthdiv.measures.words import words
from synthdiv.mix.filters import overlap, overlap_counts, refuses
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.split import rank
from synthdiv.views.layout import Row, csv_text, markdown
from synthdiv.views.report.collect import LARGE, finished, manifest, read_or
from synthdiv.views.report.tables import some

DIVERSITY = ("distinct_2@words", "mtld@words", "compression_gzip@words", "self_bleu_3@texts")
BUDGET, ANSWERS = TextBudget(words=1000, texts=50, length=5), 200  # of random answers of a mix
SHOWN, LETTERS = 3, 300  # rows of each source in a sample, and how much of each text
SUMMED = ("removed", "test prompts", "test answers")
Rows = list[dict[str, Any]]
TUNED = "matched_temperature"  # a stage
SETS = ("questions", "requests", "task_texts")  # stages: prompt sets of suites


def cards(
    root: Path, ledger: Ledger, scores: Mapping[str, Mapping[str, Score]], names: Mapping[str, str]
) -> tuple[list[Row], dict[str, str]]:
    """A row for each finished mix of a sweep, of more than `LARGE` mixes one for each group of arms, and files by name:
    the card of each and a table of all. `scores` are by cell, and so are `names`, of its arm."""
    nodes, lines, files = {node.key: node for node in ledger.nodes()}, list[Row](), dict[str, str]()
    trained, arms = dict[str, CellRecord](), defaultdict[str, dict[str, None]](dict)
    for cell in ledger.cells():
        if cell.train in nodes:
            trained[key := nodes[cell.train].inputs.get("mix", "")] = cell
            arms[key][names[cell.key]] = None
    if len(trained) > LARGE:
        trained = {key: trained[key] for key in {(*arms[key],): key for key in trained}.values()}
    for key, cell in trained.items():
        mix, prompts, file = finished(root, key or "-"), finished(root, cell.prompts), f"cards/{key[:8]}.md"
        rows = read_or(Rows(), mix, lambda path: read_mix(Artifact(None, "", path)))
        train = read_or(Rows(), prompts, lambda path: read_prompts(Artifact(None, "", path), "train"))
        if not mix or not prompts or not rows or not train:
            continue
        summary = manifest(mix)["summary"]
        paths = {f"{nodes[at].stage} {at[:4]}": finished(root, at) for at in cell.nodes if nodes[at].stage in SETS}
        sets = {name: read_or(Rows(), path, lambda path: read_prompts(Artifact(None, "", path), "test"))
                for name, path in paths.items()}  # fmt: skip
        shared = overlap(rows, sets)
        overlaps = summary.get("overlap", {}) | overlap_counts(rows, shared)
        licences = {"human": nodes[cell.prompts].fields.get("licence")} | cell.licences
        sources = source_rows(rows, summary | {"overlap": overlaps}, licences)
        hidden = {row["id"] for row in train if row.get("planted")}
        hidden |= {row["id"] for of in shared.values() for row, flag in zip(rows, of["prompts"], strict=True) if flag}
        confidential = manifest(prompts).get("confidential")
        drawn = sorted(rows, key=lambda row: rank(0, "card", row["id"]))[:ANSWERS]  # rows are by round and author
        arm = WordArm([[row["response"]] for row in drawn], intervals=False)  # which cards do not show
        measured = [each.score() for each in (*words_estimates(arm, BUDGET), *texts_estimates(arm, BUDGET))]
        measured = [replace(score, note=score.note * math.isnan(score.value)) for score in measured]
        measured = [score for score in (*measured, *scores.get(cell.key, {}).values())
                    if score.name in DIVERSITY or "mix/" in score.name]  # fmt: skip
        values = [{name: getattr(score, name) for name in ("name", "value", "n", "note")} for score in measured]
        sample_text = "The prompts are confidential.\n" if confidential else markdown(sample(rows, hidden))
        files[file] = (
            f"# Mix {key[:8]}\n\nOf {', '.join(arms[key])}.\n\n{markdown(sources)}"
            f"\n## Diversity of {ANSWERS} random answers, and quality\n\n"
            f"{markdown(values)}\n## A sample\n\n{sample_text}"
        )
        line = {"card": file, "arms": some(arms[key]), "rows": len(rows)}
        line["effective sources"] = summary.get("effective_sources")
        for tuned in (finished(root, at) for at in cell.nodes if nodes[at].stage == TUNED):
            facts = manifest(tuned)["summary"] if tuned else {}
            line |= {"temperature": facts.get("temperature"), "nats a token": facts.get("interpolated")}
            line["nats a token of multi"] = facts.get("nll", {}).get("multi")
        line["sources"] = ", ".join(f"{row['source']} {row['share']}" for row in sources)
        lines.append(line | {name: sum(row.get(name, 0) for row in sources) for name in SUMMED})
    return lines, files | ({"mixes.csv": csv_text(lines)} if lines else {})


def source_rows(rows: Rows, summary: Mapping[str, Any], licences: Mapping[str, str | None]) -> Rows:
    """What a mix has of each source. Tokens are of the writer's tokenizer, and none where they were not counted."""
    lines, source_names = [], [*(row["source"] for row in rows), *summary.get("removed", {})]  # of some no row is left
    for source in dict.fromkeys(source_names):
        written, removed = [row for row in rows if row["source"] == source], summary.get("removed", {}).get(source, {})
        line = {"source": source, "licence": licences.get(source) or "not stated", "rows": len(written)}
        line |= {"share": f"{len(written) / len(rows):.1%}"}
        line["words"] = sum(len(words(row["response"])) for row in written)
        line["tokens"] = sum(max(0, row["response_tokens"]) for row in written) or None
        line |= {"refusals": sum(map(refuses, written)), "removed": sum(removed.values()), "why": ", ".join(removed)}
        overlaps = {f"{name} {kind}": of for name, kinds in summary["overlap"].items() for kind, of in kinds.items()}
        lines.append(line | {name: of.get(source, 0) for name, of in overlaps.items()})
    return lines


def sample(rows: Rows, hidden: set[str]) -> Rows:
    """The first rows of each source, without those that refuse or ask what a suite asks: these can be harmful."""
    rows_by_source: dict[str, Rows] = {row["source"]: [] for row in rows}
    for row in rows:
        if len(rows_by_source[row["source"]]) < SHOWN and row["id"] not in hidden and not refuses(row):
            texts = {name: row[name][:LETTERS] for name in ("prompt", "response")}
            rows_by_source[row["source"]].append({"source": row["source"]} | texts)
    return [line for lines in rows_by_source.values() for line in lines]
