"""Where values come from: paths in presets of `--config-dir` are relative to that folder, and no field that the outputs
show has a value of the environment, which may be secret."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from synthdiv.core.fields import dotted
from synthdiv.core.types import ConfigError
from synthdiv.study.config import Cell

NOT_IDENTITY = ("runtime", "track", "report", "sweep", "rerun", "experiment", "hydra")
READ: list[str] = []  # the environment variables that were read


def environment(*arguments: Any) -> Any:
    READ.append(str(arguments[0]))
    return oc.env(*arguments)


OmegaConf.register_new_resolver("oc.env", environment, replace=True)


def settings_in(block: Any, name: str = "") -> Iterator[tuple[str, Any, Any, bool]]:
    """Each setting: its dotted name, the block and key that hold it, and whether it is a locator."""
    kind = OmegaConf.get_type(block)
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    locators = {item.name for item in fields if item.metadata.get("locator")}
    for key in range(len(block)) if OmegaConf.is_list(block) else list(block):
        plain = OmegaConf.is_interpolation(block, key) or OmegaConf.is_missing(block, key)
        if not plain and OmegaConf.is_config(block[key]):
            yield from settings_in(block[key], dotted(name, str(key)))
        else:
            yield dotted(name, str(key)), block, key, key in locators


def paths_from(folder: str, config: DictConfig) -> None:
    """Make the relative paths of composed presets relative to their folder."""
    for _, block, key, locator in settings_in(config):
        if locator and key == "path" and not OmegaConf.is_interpolation(block, key) and block[key]:
            block[key] = str(Path(folder, Path(block[key]).expanduser()))


def cell_of(config: DictConfig, same: set[str], converted: dict[str, Any]) -> Cell:
    """The cell of a configuration. The blocks in `same` are copies of those in `converted`, which gets those that are
    not there yet. ConfigError names what would write a value of the environment into a key."""

    def block(name: str) -> Any:
        if name in same and name in converted:
            return copy.deepcopy(converted[name])
        value = OmegaConf.to_object(config[name]) if OmegaConf.is_config(config[name]) else config[name]
        if name in same:
            converted[name] = copy.deepcopy(value)
        return value

    READ.clear()
    try:
        return Cell(**{str(name): block(str(name)) for name in config})
    finally:
        if READ and (problems := list(from_environment(config))):
            raise ConfigError(problems)


def from_environment(config: DictConfig) -> Iterator[str]:
    for name, block, key, locator in settings_in(config):
        if locator or name.split(".")[0] in NOT_IDENTITY or not OmegaConf.is_interpolation(block, key):
            continue
        READ.clear()
        with contextlib.suppress(Exception):
            block[key]
        if READ:
            yield f"{name}: takes a value of the environment ({READ[0]}), which outputs would show; give the value"
