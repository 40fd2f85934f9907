"""The page as text. It loads nothing: scripts and styles are in it, and its policy names their hashes. Words of models,
servers and presets are escaped by the template, and data is JSON without `<`."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from synthdiv.core.terminal import clean
from synthdiv.views.layout import cell_text, columns

ASSETS = Path(__file__).parent / "assets"
PLOTLY = "plotly-cartesian-4.1.1.min.js"
PLOTLY_STYLES = (  # what plotly adds: an empty style sheet, and one of a library of maps that the bundle has
    "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "sha256-wkY2X5hecQzbhnFCqvTpwrUJ1f4X8LH5WFjYUzv1wmU=",
)  # fmt: skip


def render(context: dict[str, Any]) -> str:
    import jinja2

    loader = jinja2.FileSystemLoader(ASSETS)
    environment = jinja2.Environment(autoescape=True, loader=loader, undefined=jinja2.StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"columns": columns, "cell": lambda value: clean(cell_text(value)), "ticks": ticks}
    scripts = [(ASSETS / file).read_text(encoding="utf-8") for file in (PLOTLY, "page.js")]
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    styles = " ".join(f"'{each}'" for each in (sha256(style), *PLOTLY_STYLES))
    policy = f"default-src 'none'; script-src {' '.join(repr(sha256(script)) for script in scripts)}; "
    policy += f"style-src {styles}; img-src data: blob:; base-uri 'none'; form-action 'none'"
    plots = (plot for group in context["plots"].values() for plot in group)
    specs = {plot.name: {"data": plot.data, "layout": plot.layout} for plot in plots}
    data = json_text({"plots": specs, "samples": context["samples"], "every": context["every"]})
    return environment.get_template("page.html").render(context, policy=policy, style=style, scripts=scripts, data=data)


def ticks(text: str) -> Any:
    """Text in which words between backticks are code."""
    import markupsafe

    return markupsafe.Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(clean(text)))))


def sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def json_text(data: Any) -> str:
    """JSON that can stand in a page: no `<`, and what is undefined or infinite is null."""
    return json.dumps(plain(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None if math.isnan(data) else str(data)
    return data
