"""From overrides to cells: composed once per distinct choice of groups, plain values set on that one configuration."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from synthdiv.config import Cell
from synthdiv.schema import refuse_unknown
from synthdiv.types import ConfigError


@dataclass(frozen=True)
class Point:
    """One point of the grid: its overrides as a user would type them, the choice of groups, and the cell they give."""

    overrides: tuple[str, ...]
    choices: dict[str, str]
    cell: Cell


def product(overrides: list[Override]) -> list[list[str]]:
    """Every combination in Hydra's order: the last key varies fastest, a repeated key keeps its first place and its
    last value."""
    axes: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise ConfigError(
                    f"{override.input_line}: an interval has no points; give values: {key}=a,b or range(…)"
                )
            axes[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not axes[key]:
                raise ConfigError(f"{override.input_line}: stands for no value at all")
        else:
            axes[key] = [f"{key}={override.get_value_element_as_str()}"]
    return [list(words) for words in itertools.product(*axes.values())]


class Expander:
    """Composes cells through Hydra's own loader."""

    def __init__(self, loader: Any, config_name: str, hydra_overrides: list[str]):
        assert isinstance(loader, ConfigLoaderImpl)
        self.loader, self.config_name, self.hydra_overrides = loader, config_name, hydra_overrides
        self.parser = OverridesParser.create(loader)
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def expand(self, params: dict[str, str], arguments: list[str]) -> list[Point]:
        """The grid: `params` of an experiment file, then the command line, which wins where both set a key."""
        given = [f"{key}={value}" for key, value in params.items()]
        refuse_unknown(given + arguments)
        typed = {override.get_key_element() for override in self.parser.parse_overrides(arguments)}
        kept = [text for text in given if text.split("=", 1)[0] not in typed]
        points, problems = [], []
        for words in product(self.parser.parse_overrides([*arguments, *kept])):
            try:
                points.append(self.point(words))
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(dict.fromkeys(problems))
        return points

    def point(self, words: list[str]) -> Point:
        parsed = self.parser.parse_overrides(words)
        groups = [override for override in parsed if self._is_group(override)]
        values = [override for override in parsed if not self._is_group(override)]
        try:
            config = self._compose(tuple(str(override.input_line) for override in groups))
            return Point(tuple(words), self._choices(config), self._with_values(config, values))
        except (OmegaConfBaseException, HydraException) as error:
            raise ConfigError(one_line(error)) from error

    def _is_group(self, override: Override) -> bool:
        return self.loader.repository.group_exists(override.key_or_group)

    def _compose(self, groups: tuple[str, ...]) -> DictConfig:
        if groups not in self._composed:
            config = self.loader.load_configuration(
                self.config_name, [*self.hydra_overrides, *groups], RunMode.RUN, from_shell=False
            )
            self._composed[groups] = config
        return self._composed[groups]

    def _choices(self, config: DictConfig) -> dict[str, str]:
        return {str(key): str(value) for key, value in config.hydra.runtime.choices.items() if "/" not in str(key)}

    def _with_values(self, config: DictConfig, values: list[Override]) -> Cell:
        before: dict[str, Any] = {}  # whole groups: a list can be replaced after one of its items was set
        try:
            for override in values:
                below = "." if isinstance(override.value(), dict) else ""  # a mapping is merged into what is there
                check_reachable(config, override.key_or_group + below)
                group = override.key_or_group.split(".")[0]
                if group not in before:
                    before[group] = copy.deepcopy(config._get_node(group))
                ConfigLoaderImpl._apply_overrides_to_config([override], config)
            return as_cell(config)
        finally:
            for group, node in before.items():
                config.__dict__["_content"][group] = node
                node._set_parent(config)


def check_reachable(config: DictConfig, key: str) -> None:
    """An override below a null block or behind the end of a list: say which, and that its group chooses it."""
    parts = key.split(".")
    group = parts[0]
    preset = f"{group}={config.hydra.runtime.choices.get(group)}"
    for length in range(1, len(parts)):
        above = ".".join(parts[:length])
        block = OmegaConf.select(config, above)
        if block is None:
            raise ConfigError(
                f"{key.rstrip('.')}: {above} is null with {preset}, so nothing below it can be set; "
                f"choose a {group} preset that has it"
            )
        if OmegaConf.is_list(block) and parts[length] and not int(parts[length]) < len(block):
            raise ConfigError(f"{key}: {above} has {len(block)} items with {preset}, and the first is number 0")


def as_cell(config: DictConfig) -> Cell:
    """Live dataclasses from a composed configuration."""
    parts: dict[str, Any] = {}
    for item in dataclasses.fields(Cell):
        part = config[item.name]
        parts[item.name] = OmegaConf.to_object(part) if OmegaConf.is_config(part) else part
    return Cell(**parts)


def one_line(error: BaseException) -> str:
    """What OmegaConf or Hydra said, without its list of internals."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name}: no such preset; there are {', '.join(error.options)}"
    said = [str(error) or type(error).__name__, str(error.__cause__ or "")]
    head = "Error merging override "
    internals = ("object_type", "reference", *(["full_key"] if said[0].startswith(head) else []))
    if said[0].startswith(head):
        said[0] = f"{said[0].removeprefix(head)}:"
    lines = [line.strip() for text in said for line in text.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(internals))


def try_out(folders: list[Path], overrides: list[str]) -> None:
    """Compose by ourselves what Hydra, which composes before our sweeper, refused: a mistake is told in our words."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    conf, *more = folders
    searched = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in more)}]"] if more else []
    with initialize_config_dir(str(conf), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        Expander(loader, "config", searched).expand({}, [word for word in overrides if not word.startswith("hydra")])
