"""What the numbers stand on: what each model was trained on, what the work cost, and which code made it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.files import regular
from synthdiv.core.ledger import NodeRecord
from synthdiv.core.store import MANIFEST
from synthdiv.core.tail import Tail
from synthdiv.generate.spend import FILE, Totals
from synthdiv.views.layout import Row, duration


@dataclass
class Provenance:
    """Of the nodes of a sweep whose artifacts are finished. Manifests that cannot be read do not count."""

    time: list[Row] = field(default_factory=list)
    """By stage: nodes, and the time of all sessions that worked on them, whichever sweep they belonged to; that of
    sessions that were killed is not known, and these are counted."""
    seconds: float = 0.0
    usd: float = 0.0
    tokens: int = 0
    """`usd` and `tokens` are of hosted models, by all sweeps of these outputs."""
    versions: list[Row] = field(default_factory=list)
    """Each commit, and each version, device and accelerator that is not the same in all sessions."""
    mixes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the key of a trained model, the summary of the mix it was trained on."""

    cards: list[Row] = field(default_factory=list)
    """A row for each mix, with the file of its data card."""
    unanswered: Sequence[Row] = ()
    left_out: str = ""
    judges: Sequence[Row] = ()
    relations: Sequence[str] = ()
    damaged: Iterable[str] = ()
    """A line for each artifact that cannot be read, and is left out."""

    @property
    def differing(self) -> list[str]:
        counts = Counter(str(row["what"]) for row in self.versions)
        return [name for name, count in counts.items() if count > 1]

    def overlaps(self) -> list[str]:
        """For each source of which a fine-tuning set has prompts or answers that are nearly those of an evaluation set,
        the most of one mix."""
        counts: dict[str, int] = {}
        for mix in self.mixes.values():
            for name, kinds in (mix.get("overlap") or {}).items():
                for kind, sources in kinds.items():
                    for source, count in sources.items():
                        text = f"{kind} of {source} in {name}"
                        counts[text] = max(count, counts.get(text, 0))
        return [f"{count:,} {text}" for text, count in sorted(counts.items()) if count]


def provenance(root: Path, graph: Sequence[NodeRecord]) -> Provenance:
    result, sessions = Provenance(), defaultdict[str, Counter[str]](Counter)
    time, killed = defaultdict[str, list[float]](list), Counter[str]()
    summaries: dict[str, dict[str, Any]] = {}
    for node in graph:
        try:
            if not regular(file := root / "artifacts" / node.stage / node.key / MANIFEST):
                continue
            manifest, seconds = dict(json.loads(file.read_text(encoding="utf-8"))), 0.0
        except (OSError, ValueError, TypeError):
            continue
        for session in manifest.get("sessions", ()):
            seconds += float(session.get("seconds") or 0.0)
            killed[node.stage] += session.get("seconds") is None
            commit = f"{session.get('commit') or 'unknown'}{' with changes' if session.get('dirty') else ''}"
            facts = {"commit": commit, "device": session.get("device"), "accelerator": session.get("accelerator")}
            for subject, value in {**facts, **session.get("versions", {})}.items():
                sessions[subject][str(value)] += 1
        time[node.stage].append(seconds)
        if node.stage == "mix":
            summaries[node.key] = manifest.get("summary", {})
    result.time = [
        {"stage": stage, "nodes": len(each), "time": duration(sum(each)), "mean": duration(sum(each) / len(each))}
        | {"killed": killed[stage]}
        for stage, each in sorted(time.items(), key=lambda item: -sum(item[1]))
    ]
    result.seconds = sum(map(sum, time.values()))
    result.versions = [
        {"what": subject, "value": value, "sessions": count}
        for subject, values in sessions.items()
        if subject == "commit" or len(values) > 1
        for value, count in values.most_common()
    ]
    result.mixes = {node.key: summaries[node.inputs["mix"]] for node in graph if node.inputs.get("mix") in summaries}
    totals = Totals()
    for line in Tail(root / FILE).read():
        totals.take(line)
    result.usd, result.tokens = float(totals.total[0]), int(totals.total[1])
    return result
