"""The prompts that students do not train on as asked: those that a source refused or failed, and those left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from synthdiv.core.ledger import Ledger
from synthdiv.core.store import MANIFEST
from synthdiv.generate.generate import Split, read_log
from synthdiv.views.layout import Row
from synthdiv.views.report.collect import damage, manifest

OUTCOMES = ("refusal", "failed")
SHOWN = 10  # ids of prompts that are left out


def unanswered_rows(ledger: Ledger) -> tuple[Sequence[Row], str]:
    """A row for each source of a sweep that refused or failed a prompt to train on, with the most frequent
    reason, and the prompts left out of mixes as a line; empty where there is none. Damaged shards do not count."""
    answers, reasons = defaultdict[str, Counter[str]](Counter), defaultdict[str, Counter[str]](Counter)
    left_out = dict[str, None]()
    for node in ledger.nodes():
        path = ledger.root / "artifacts" / node.stage / node.key
        left_out |= dict.fromkeys(node.fields.get("leave_out") or ())
        train = node.stage == "generate" and node.fields.get("split") == Split.train.value
        if not train or not (path / MANIFEST).exists() or damage(path):
            continue
        source = node.fields["source"]
        record = manifest(path)
        finish = record["summary"]["finish"]
        answers[source].update(finish)
        for line in read_log(path) if finish.keys() & OUTCOMES and not record["confidential"] else ():
            reasons[source].update(str(line[outcome]) for outcome in OUTCOMES if line.get(outcome))
    rows = [
        {"source": source, "answers": count.total(), "refused": count["refusal"], "failed": count["failed"]}
        | {"most frequent reason": next((reason for reason, _ in reasons[source].most_common(1)), "")}
        for source, count in sorted(answers.items())
        if count["refusal"] or count["failed"]
    ]
    ids = ", ".join([*left_out][:SHOWN]) + (", …" if len(left_out) > SHOWN else "")
    return rows, f"Left out of mixes (mix.leave_out): {len(left_out)} ({ids})." if left_out else ""
