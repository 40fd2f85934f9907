"""What Hydra and OmegaConf refuse, in one line, with what to write instead."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException


def one_line(error: BaseException) -> str:
    """The message of an error of OmegaConf or Hydra without the lines about their internals."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name}: no such preset; choose one of {', '.join(error.options)}"
    if field := re.match(r"Could not override 'hydra\.launcher\.(\w+)", str(error)):
        return no_launcher_field(field[1])
    messages = (str(error) or type(error).__name__, str(error.__cause__ or ""))
    lines = [line.strip() for text in messages for line in text.splitlines()]
    line = " ".join(line for line in lines if line and not line.startswith(("object_type", "reference", "full_key")))
    return f"{line}{quoting(error.override)}" if isinstance(error, OverrideParseException) else line


def no_launcher_field(name: str) -> str:
    """The message on a field that the launcher in use does not have: it names the launchers that have it."""
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    fields: dict[str, list[str]] = {
        file.removesuffix(".yaml"): [key for key in entry.node if key != "_target_"]
        for file, entry in launchers.items()
        if entry.provider == "synthdiv"
    }
    having = [f"hydra/launcher={launcher}" for launcher in fields if name in fields[launcher]]
    listing = "; ".join(f"{launcher} has {', '.join(keys)}" for launcher, keys in fields.items() if keys)
    advice = f"it is one of {' and '.join(having)}: add that" if having else f"no launcher has: {listing}"
    return f"hydra.launcher.{name}: the launcher of this run has no such field; {advice}"


def quoting(override: str) -> str:
    """How to write an override that Hydra cannot parse, for a shell: a mapping without quotes around its keys, any
    other value as a text in quotes; empty if that is no override either."""
    key, _, value = override.partition("=")
    try:
        inner = grammar(json.loads(value)) if value.startswith(("{", "[")) else text(value)
        written = f"{key}={inner}"
        OverridesParser.create().parse_override(written)
    except (ValueError, HydraException):
        return ""
    return f". Write {shlex.quote(written.removeprefix('++'))}"


def grammar(value: Any) -> str:
    """A value of JSON in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {grammar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(grammar, value)) + "]"
    return text(value) if isinstance(value, str) else json.dumps(value)


def text(value: str) -> str:
    """A text in the quotes of Hydra's grammar."""
    quote = "'" if '"' in value else '"'
    return quote + value.replace(quote, f"\\{quote}") + quote
