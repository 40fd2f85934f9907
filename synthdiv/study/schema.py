"""Which keys the command line may set. Undeclared ones are refused first: `+key` passes a schema and is dropped."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import OmegaConf

from synthdiv.core.fields import type_hints, without_none
from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import own_suites, suite_class
from synthdiv.study.config import Cell

EXTRA_GROUPS = ("experiment", "hydra")


def leaves(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key below a dataclass. The items of a list are written with index 0, and what stands below a mapping
    or an item that names its own schema as *."""
    for item in dataclasses.fields(kind):
        hint, key = without_none(type_hints(kind)[item.name]), f"{prefix}{item.name}"
        yield key
        if typing.get_origin(hint) is list:
            yield (key := f"{key}.0")
            hint = without_none(typing.get_args(hint)[0])
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{key}.")
        elif hint is Any or typing.get_origin(hint) is dict:
            yield f"{key}.*"


@functools.cache
def known_keys() -> re.Pattern[str]:
    """Matches the fields of a cell and the items of its lists."""
    known = "|".join(re.escape(leaf) for leaf in leaves(Cell))
    return re.compile(known.replace("\\*", ".+").replace("\\.0", r"\.\d+"))


def schema() -> Any:
    """The cell as Hydra's schema; the keys of its mappings may be set like fields."""
    node = OmegaConf.structured(Cell)
    for key in [leaf.removesuffix(".*") for leaf in leaves(Cell) if leaf.endswith(".*")]:
        if OmegaConf.is_dict(value := OmegaConf.select(node, key)):
            OmegaConf.set_struct(value, False)
    return node


def key_of(override: str) -> str:
    """The key that an override sets, without Hydra's prefixes and package."""
    return override.lstrip("+~").split("=", 1)[0].split("@", 1)[0].strip()


def nearest(key: str) -> list[str]:
    """At most three fields that `key` may mean: spelt out (learning_rate for lr), misspelt, or in another block."""
    known = [leaf for leaf in leaves(Cell) if not leaf.endswith((".0", ".*"))]
    if key.startswith("evaluate."):
        for index, name in enumerate(own_suites()):  # in the order of our presets
            known += leaves(suite_class(name), f"evaluate.suites.{index}.")
    block, _, last = key.rpartition(".")
    short = "".join(word[:1] for word in last.split("_"))
    near = [f"{block}.{short}"] if f"{block}.{short}" in known else []
    same = sorted((name for name in known if name.rsplit(".", 1)[-1] == last), key=len)
    near += [name for name in same if name.split(".")[0] == key.split(".")[0]]
    near += [*difflib.get_close_matches(key, known, 3, 0.6), *same]
    return list(dict.fromkeys(near))[:3]


def refuse_unknown(overrides: list[str], verbs: Sequence[str] = ()) -> None:
    """Raise one ConfigError that names every undeclared key with the nearest fields. A word without `=` may be a
    misspelt verb."""
    problems = []
    for override in overrides:
        key = key_of(override)
        if "=" not in override and not override.startswith("~"):
            near = difflib.get_close_matches(override, verbs, 1)
            hint = f" nor a verb; did you mean `synthdiv {near[0]}`?" if near else f" nor a verb ({', '.join(verbs)})"
            problems.append(f"{override!r} is neither of the form key=value{hint}")
        elif key.split("/")[0].split(".")[0] == "hydra":
            continue
        elif key in EXTRA_GROUPS or known_keys().fullmatch(key):
            if override.startswith("~") or (override.startswith("+") and not override.startswith("++")):
                problems.append(f"{override}: fields cannot be added or deleted; write {key}=VALUE")
        else:
            near = nearest(key)
            hint = f"did you mean {' or '.join(near)}?" if near else "`synthdiv --cfg job` shows all fields"
            problems.append(f"{key}: no such field; {hint}")
    if problems:
        raise ConfigError(problems)
