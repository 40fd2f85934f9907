"""From overrides to cells: composed once per distinct choice of groups, plain values set on that one configuration."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
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
        else:
            axes[key] = [f"{key}={override.get_value_element_as_str()}"]
    return [list(words) for words in itertools.product(*axes.values())]


class Expander:
    """Composes cells through Hydra's own loader."""

    def __init__(self, loader: Any, config_name: str, hydra_overrides: list[str]):
        assert isinstance(loader, ConfigLoaderImpl)
        self.loader, self.config_name, self.hydra_overrides = loader, config_name, hydra_overrides
        self.parser = OverridesParser.create()
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def expand(self, params: dict[str, str], arguments: list[str]) -> list[Point]:
        """The grid: `params` of an experiment file, then the command line, which wins where both set a key."""
        given = [f"{key}={value}" for key, value in params.items()]
        refuse_unknown(given + arguments)
        typed = {override.get_key_element() for override in self.parser.parse_overrides(arguments)}
        kept = [text for text in given if text.split("=", 1)[0] not in typed]
        return [self.point(words) for words in product(self.parser.parse_overrides([*arguments, *kept]))]

    def point(self, words: list[str]) -> Point:
        parsed = self.parser.parse_overrides(words)
        groups = [override for override in parsed if self._is_group(override)]
        values = [override for override in parsed if not self._is_group(override)]
        config = self._compose(tuple(str(override.input_line) for override in groups))
        try:
            return Point(tuple(words), self._choices(config), self._with_values(config, values))
        except (OmegaConfBaseException, HydraException, AssertionError) as error:
            raise ConfigError(f"{' '.join(words)}: {one_line(error)}") from error

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
        before: list[tuple[Any, Any, Any]] = []
        try:
            for override in values:
                check_reachable(config, override.key_or_group)
                before.append(held(config, override.key_or_group))
                ConfigLoaderImpl._apply_overrides_to_config([override], config)
            return as_cell(config)
        finally:
            for above, last, node in reversed(before):
                above._content[last] = node
                node._set_parent(above)


def held(config: DictConfig, key: str) -> tuple[Any, Any, Any]:
    """Where `key` hangs, under which name, and a copy of what hangs there: to set it back."""
    path, _, last = key.rpartition(".")
    above: Any = OmegaConf.select(config, path) if path else config
    name: Any = int(last) if OmegaConf.is_list(above) else last
    return above, name, copy.deepcopy(above._get_node(name))


def check_reachable(config: DictConfig, key: str) -> None:
    """An override below a null block: say which block, and that its group chooses it."""
    parts = key.split(".")
    for length in range(1, len(parts)):
        above = ".".join(parts[:length])
        if OmegaConf.select(config, above) is None:
            group = parts[0]
            chosen = config.hydra.runtime.choices.get(group)
            raise ConfigError(
                f"{key}: {above} is null with {group}={chosen}, so nothing below it can be set; choose a {group} preset "
                f"that has it"
            )


def as_cell(config: DictConfig) -> Cell:
    """Live dataclasses from a composed configuration."""
    parts = {item.name: config[item.name] for item in dataclasses.fields(Cell)}
    return Cell(
        **{name: OmegaConf.to_object(part) if OmegaConf.is_config(part) else part for name, part in parts.items()}
    )


def one_line(error: BaseException) -> str:
    """What OmegaConf or Hydra said, without its list of internals."""
    text = str(error) or type(error).__name__
    if error.__cause__ is not None and str(error.__cause__):
        text = f"{text} {error.__cause__}"
    return " ".join(
        line.strip() for line in text.splitlines() if not line.strip().startswith(("object_type", "reference"))
    )
