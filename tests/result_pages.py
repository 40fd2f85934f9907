"""The tables of docs/instrument.md and docs/sources_alike.md, and its picture, from finished outputs.

python -m tests.result_pages instrument OUTPUTS…
python -m tests.result_pages alike WORDS VECTORS    outputs with all prompts, and outputs with sentence vectors
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import yaml
from scipy import stats
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from synthdiv.prompts.toy_collapse import COLLAPSES, CONTROLS
from tests.structure import ROOT

BEGIN, END = "<!-- made by `python -m tests.result_pages` -->", "<!-- end -->"
SEEN = 0.8  # the share of worlds in which a strength is seen
STRONGEST, DRAWS = "0.8", 20


def write_tables(page: str, *tables: str) -> None:
    path = ROOT / "docs" / page
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    text = "\n\n".join([BEGIN, *tables, END])
    path.write_text(f"{before}{text}{rest.partition(END)[2]}", encoding="utf-8")


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def artifacts(stage: str, outputs: str) -> list[Path]:
    return sorted(path.parent for path in Path(outputs, "artifacts", stage).glob("[0-9a-f]*/manifest.json"))


class Worlds:
    """z by measure, size, change and strength, and the exact axis by change and strength: each by world."""

    def __init__(self, outputs: list[str]) -> None:
        self.z: dict[Any, dict[str, float]] = defaultdict(dict)
        self.axis: dict[Any, dict[str, float]] = defaultdict(dict)
        self.better: dict[str, bool | None] = {}
        for folder in [folder for each in outputs for folder in artifacts("instrument", each)]:
            world = json.loads((folder / "manifest.json").read_text())["inputs"]["prompts"]["key"]
            for score in json.loads((folder / "scores.json").read_text()):
                self.better[score["name"].split("/", 1)[1]] = score["higher_is_better"]
            for row in pyarrow.parquet.read_table(folder / "items.parquet").to_pylist():
                change, strength = row["prompt"].split("@")
                if row["measure"] in ("kl", "lost"):
                    self.axis[row["measure"], change, strength][world] = row["value"]
                else:
                    self.z[row["measure"], row["order"], change, strength][world] = row["value"]

    def towards(self, measure: str, size: int, change: str, strength: str) -> np.ndarray:
        """z of each world where it is defined, positive where the measure says less diverse (or less human-like)."""
        values = np.array([*self.z[measure, size, change, strength].values()])
        return values[~np.isnan(values)] * (-1 if self.better[measure] else 1)

    def seen(self, measure: str, size: int, change: str) -> str:
        """The smallest strength from which on 80 % of the worlds show the collapse."""
        strengths = sorted({key[3] for key in self.z if key[:2] == (measure, size)}, key=float)
        least = "–"
        for strength in reversed(strengths):
            z = self.towards(measure, size, change, strength)
            if not len(z) or (z > critical()).mean() < SEEN:
                break
            least = strength.lstrip("0")
        return least

    def right(self, measure: str, size: int, change: str) -> str:
        """In how many worlds the strongest collapse lowers diversity."""
        z = self.towards(measure, size, change, STRONGEST)
        return f"{int((z > 0).sum())}" if len(z) else "–"

    def moved(self, measure: str, size: int, control: str) -> str:
        """The share of worlds in which the strongest control changes the measure, and to which side."""
        z = self.towards(measure, size, control, STRONGEST)
        share = (abs(z) > critical()).mean() if len(z) else np.nan
        side = ("↓" if np.median(z) > 0 else "↑") if share > 0.25 else ""
        return f"{share:.0%}{side}" if len(z) else "–"


def critical() -> float:
    return float(stats.t(DRAWS - 1).ppf(0.975))


def instrument(outputs: list[str]) -> None:
    worlds = Worlds(outputs)
    sizes = sorted({size for _, size, *_ in worlds.z})
    measures = [name for name in worlds.better if worlds.better[name] is not None]
    count = {(name, size): len(worlds.towards(name, size, "tail", STRONGEST)) for name in measures for size in sizes}
    rows = []
    for name in measures:
        known = [size for size in sizes if worlds.z[name, size, "tail", STRONGEST]]
        if not any(count[name, size] for size in known):
            continue
        reference = max(known, key=lambda size: (count[name, size], size))
        cells = [
            f"{worlds.right(name, reference, change)}: " + " ".join(worlds.seen(name, size, change) for size in known)
            for change in COLLAPSES
        ]
        cells += [" ".join(worlds.moved(name, size, control) for size in known) for control in CONTROLS]
        rows.append([f"`{name}`", ", ".join(str(count[name, size]) for size in known), *cells])
    strengths = sorted({strength for _, _, strength in worlds.axis}, key=float)
    axis = []
    for change in COLLAPSES:
        kind, unit = ("lost", "mass lost") if change == "tail" else ("kl", "KL, nats")
        values = [np.mean([*worlds.axis[kind, change, each].values()]) for each in strengths]
        axis.append([f"`{change}`", unit, *(f"{value:.2g}" for value in values)])
    at = "worlds at n = " + ", ".join(f"{size:,}" for size in sizes)
    header = ["measure", at, *(f"`{name}`" for name in COLLAPSES), *(f"`{name}` moves it" for name in CONTROLS)]
    write_tables("instrument.md", table(["strength", "", *strengths], axis), table(header, rows))


# Sources that write alike.


def alike_scores(outputs: str) -> dict[str, dict[str, Any]]:
    (folder,) = artifacts("sources_alike", outputs)[-1:]
    return {score["name"]: score for score in json.loads((folder / "scores.json").read_text())}


def shown(score: dict[str, Any] | None) -> str:
    if not score or score["value"] is None:
        return "–"
    interval = f" ({score['low']:.2f}–{score['high']:.2f})" if score["low"] is not None else ""
    return f"{score['value']:.2f}{interval}"


def matrix(scores: dict[str, dict[str, Any]], kind: str, names: list[str]) -> np.ndarray:
    values = np.eye(len(names))
    for one, a in enumerate(names):
        for other, b in enumerate(names):
            score = scores.get(f"{kind}/alike/{a}+{b}")
            if score:
                values[one, other] = values[other, one] = score["value"]
    return values


def alike(words: str, vectors: str) -> None:
    models = yaml.safe_load((ROOT / "conf" / "generators" / "alpaca_eval.yaml").read_text())["models"]
    experiment = yaml.safe_load((ROOT / "conf" / "experiment" / "sources_alike.yaml").read_text())
    family = {model["name"]: model["facts"]["family"] for model in models}
    names = list(family)
    scores = {"ngrams": alike_scores(words), "vectors": alike_scores(vectors)}
    values = {kind: matrix(of_kind, kind, names) for kind, of_kind in scores.items()}
    sets = {"all": len(names)}
    sets |= {text.partition("=")[0]: len(text.split(",")) for text in experiment["evaluate"]["suites"][0]["sets"]}
    rows = []
    for name, size in sets.items():
        columns = [(kind, what) for kind in scores for what in ("alike", "voices", "voices_vendi")]
        full = [f"{kind}/{what}" + f"/{name}" * (name != "all") for kind, what in columns]
        cells = [shown(scores[kind].get(each)) for (kind, _), each in zip(columns, full, strict=True)]
        rows.append([f"`{name}`", str(size), *cells])
    header = ["set", "K", *(f"{what}, {kind}" for kind in scores for what in ("alike", "voices", "Vendi voices"))]
    ngrams, others = values.values()
    pairs = [(ngrams[i, j], others[i, j], names[j], names[i]) for i in range(len(names)) for j in range(i)]
    cells = [[a, b, *(shown(of.get(f"{kind}/alike/{a}+{b}")) for kind, of in scores.items())]
             for *_, a, b in sorted(pairs, reverse=True)]  # fmt: skip
    write_tables(
        "sources_alike.md", table(header, rows), "The most and the least alike of all pairs, by word bigrams:",
        table(["source", "source", "alike, ngrams", "alike, vectors"], [*cells[:12], ["…"] * 4, *cells[-6:]]),
        "Mean `alike` of each source:", of_each(names, family, values),
    )  # fmt: skip
    picture(names, values)


def of_each(names: list[str], family: dict[str, str], values: dict[str, np.ndarray]) -> str:
    """With the other sources of its family, with those of other families, and with people; and the nearest source."""
    rows = []
    for i, name in enumerate(names):
        rest = [j for j in range(len(names)) if j != i and names[j] != "people"]
        same = [j for j in rest if family[names[j]] == family[name]]
        other = [j for j in rest if family[names[j]] != family[name]]
        people = [names.index("people")] if name != "people" else []
        cells = [f"{each[i, at].mean():.2f}" if at else "–" for each in values.values() for at in (same, other, people)]
        rows.append(
            [name, family[name], *cells, *(names[max(rest, key=lambda j: each[i, j])] for each in values.values())]
        )
    groups = [f"{what}, {kind}" for kind in values for what in ("own family", "other families", "people")]
    return table(["source", "family", *groups, *(f"nearest, {kind}" for kind in values)], rows)


def picture(names: list[str], values: dict[str, np.ndarray]) -> None:
    """Both matrices, in the order of a clustering (average linkage) of the word bigrams."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    order = leaves_list(linkage(squareform(1 - values["ngrams"], checks=False), "average", optimal_ordering=True))
    figure, axes = pyplot.subplots(1, 2, figsize=(15, 8.8), layout="constrained", sharey=True)
    for axis, (kind, title) in zip(
        axes, {"ngrams": "word bigrams", "vectors": "sentence vectors"}.items(), strict=True
    ):
        shown = values[kind][np.ix_(order, order)].copy()
        np.fill_diagonal(shown, np.nan)
        image = axis.imshow(shown, cmap="viridis", vmin=np.nanmin(shown), vmax=np.nanmax(shown))
        axis.set_xticks(range(len(names)), [names[i] for i in order], rotation=90, fontsize=8)
        axis.set_yticks(range(len(names)), [names[i] for i in order], fontsize=8)
        axis.set_title(f"How alike, by {title} (0: as different prompts, 1: the same)", fontsize=10)
        figure.colorbar(image, ax=axis, shrink=0.7)
    figure.savefig(ROOT / "docs" / "sources_alike.png", dpi=72)


if __name__ == "__main__":
    {"instrument": lambda words: instrument(words), "alike": lambda words: alike(*words)}[sys.argv[1]](sys.argv[2:])
