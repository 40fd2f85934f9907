"""From overrides to cells: one composition per distinct choice of groups, on which the values of each cell are set."""

from __future__ import annotations

import contextlib
import copy
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import field_names, typed_items
from synthdiv.study.config import SINGLES, Cell
from synthdiv.study.generators import EVERY
from synthdiv.study.grid import GridSpec, Words, combinations, confirm_cells, settings
from synthdiv.study.hydra_errors import one_line
from synthdiv.study.origin import cell_of, paths_from
from synthdiv.study.schema import key_of


@dataclass(frozen=True)
class Point:
    """One point of the grid: the overrides as a user would type them, the choice of groups, and the resulting cell.
    `config` are the command-line words that name the user's own folder of presets and the launcher."""

    overrides: tuple[str, ...]
    choices: dict[str, str]
    cell: Cell
    config: tuple[str, ...] = ()


@dataclass(frozen=True)
class Composition:
    """What one choice of groups composes to. `choices` has the preset of each group, `independent` the blocks that take
    no value from another one, and `converted` those of them that were converted: each cell has a copy, because
    resolving writes into it."""

    config: DictConfig
    choices: dict[str, str]
    independent: set[str]
    converted: dict[str, Any] = field(default_factory=dict)


class Expander:
    """Composes cells through Hydra's loader. Composing costs some 200 ms, a cell of a known composition 2 ms."""

    def __init__(self, loader: ConfigLoader, config_name: str, hydra_overrides: list[str], verb: Words = ()):
        self.loader, self.config_name, self.hydra_overrides = loader, config_name, hydra_overrides
        self.verb = verb  # of the command that messages repeat
        self.parser = OverridesParser.create(loader)
        launcher = tuple(word for word in hydra_overrides if word.startswith(("hydra/launcher", "hydra.launcher")))
        self.config = config_words(loader, config_name) + launcher
        self.folders = [word for option, word in itertools.pairwise(self.config) if option == "--config-dir"]
        self._parsed: dict[str, Override] = {}
        self._compositions: dict[Words, Composition] = {}
        self._groups: dict[str, bool] = {}

    def expand(self, params: dict[str, str], arguments: list[str]) -> list[Point]:
        """The product of `params`, as an experiment file has them, and the command line."""
        return self.points(GridSpec(params), arguments)

    def points(self, spec: GridSpec, arguments: list[str]) -> list[Point]:
        """Every cell of a grid. Raises one ConfigError with the problems of all cells."""
        points, problems, command = dict[Words, Point](), [], self.command(arguments)
        for folder in self.folders:
            spec = spec.placed(folder, self.parse)
        for words in (override_lists := combinations(spec, arguments, self.parse, command)):
            try:
                points |= {point.overrides: point for point in self.every_source(self.point(words))}
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(dict.fromkeys(problems))
        if len(points) > spec.cells >= len(override_lists):
            confirm_cells(len(points), spec.cells, command)
        return list(points.values())

    def union(self, grids: list[GridSpec], parts: list[list[str]], arguments: list[str]) -> list[Point]:
        """The cells of several grids, each with its part of the arguments. Together they need confirmation as one."""
        groups = [self.points(grid, part) for grid, part in zip(grids, parts, strict=True)]
        count, cells = sum(map(len, groups)), min(grid.cells for grid in grids)
        if count > cells >= max(map(len, groups)):
            confirm_cells(count, cells, self.command(arguments))
        return list(itertools.chain(*groups))

    def command(self, arguments: list[str]) -> str:
        """The command of a sweep with these arguments."""
        return shlex.join(["synthdiv", *self.verb, "-m", *self.config, *arguments])

    def every_source(self, point: Point) -> list[Point]:
        """A cell of each generator for `mix.source=every`, if its mix has one source."""
        if point.cell.mix.source != EVERY or point.cell.mix.kind not in SINGLES:
            return [point]
        words = [word for word in point.overrides if key_of(word) != "mix.source"]
        return [self.point([*words, f"mix.source={model.name}"]) for model in point.cell.generators.models]

    def experiments(self, arguments: list[str]) -> list[list[str]]:
        """The arguments with each of the experiments that they sweep: every experiment has its own grid."""
        swept = {word.input_line: word for word in self.parse(arguments) if word.key_or_group == "experiment"}
        choices = [settings(word) for word in swept.values() if word.is_sweep_override()]
        if not choices:
            return [arguments]
        if not any(key_of(word) == "sweep" for word in arguments):
            raise ConfigError(
                f"{next(iter(swept))}: the grids of several experiments are one sweep; name it: sweep=NAME"
            )
        return [[choice if word in swept else word for word in arguments] for choice in choices[-1]]

    def load(self, words: Iterable[str]) -> DictConfig:
        """The configuration that the choices of presets among `words` compose to, with the block `hydra`."""
        overrides = [*self.hydra_overrides, *self._choices(self.parse(words))]
        return self.loader.load_configuration(self.config_name, overrides, RunMode.RUN, from_shell=False)

    def parse(self, words: Iterable[str]) -> list[Override]:
        """Overrides, each text parsed once."""
        words = list(words)
        new = [word for word in dict.fromkeys(words) if word not in self._parsed]
        self._parsed |= zip(new, self.parser.parse_overrides(new), strict=True)
        return [self._parsed[word] for word in words]

    def point(self, words: Iterable[str]) -> Point:
        """The cell that these overrides give; none of them is a sweep."""
        parsed = self.parse(words)
        try:
            values = [override for override in parsed if not self._is_group(override.key_or_group)]
            composed = self._compose(self._choices(parsed))
            with changed(composed, values) as config:
                same = composed.independent.difference(value.key_or_group.split(".")[0] for value in values)
                cell = cell_of(config, same, composed.converted)
            return Point(tuple(words), dict(composed.choices), cell, self.config)
        except (OmegaConfBaseException, HydraException) as error:
            raise ConfigError(one_line(error)) from error

    def _choices(self, overrides: list[Override]) -> Words:
        """Those that choose presets. A list is refused: Hydra would merge its presets."""
        choices = [override for override in overrides if self._is_group(override.key_or_group)]
        for override in choices:
            if not isinstance(override.value(), str) and not override.is_sweep_override():
                group = override.key_or_group
                names = ", ".join(self.loader.get_group_options(group))
                raise ConfigError(f"{override.input_line}: choose one of {names}; to sweep write -m {group}=NAME,NAME")
        return tuple(str(override.input_line) for override in choices if not override.is_sweep_override())

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:  # a key with a dot is a field; a look at the presets takes 20 ms
            self._groups[key] = "." not in key and bool(self.loader.get_group_options(key))
        return self._groups[key]

    def _compose(self, groups: Words) -> Composition:
        if groups not in self._compositions:
            config = self.load(groups)
            presets = config.hydra.runtime.choices.items()
            choices = {str(key): str(value) for key, value in presets if "/" not in str(key)}
            with open_dict(config):
                del config["hydra"]
            typed_items(config)
            for folder in self.folders:
                paths_from(folder, config)
            plain: Any = OmegaConf.to_container(config, resolve=False)
            taken = {name: set(re.findall(r"\$\{([^.:[}]*)", str(block))) for name, block in plain.items()}
            independent = {name for name, blocks in taken.items() if blocks <= {name}}
            self._compositions[groups] = Composition(config, choices, independent)
        return self._compositions[groups]


def config_words(loader: ConfigLoader, name: str) -> tuple[str, ...]:
    """`--config-dir` and `--config-name` as they were given; the folder is absolute, so that the printed command of a
    cell works from any folder."""
    named = ("--config-name", name) if name != "config" else ()
    elements = loader.get_search_path().get_path()
    folders = [str(element.path).removeprefix("file://") for element in elements if element.provider == "command-line"]
    return (*named, *(word for folder in folders for word in ("--config-dir", folder)))


@contextlib.contextmanager
def changed(composed: Composition, values: list[Override]) -> Iterator[DictConfig]:
    """The composed configuration with these values set; the values of before come back at the end."""
    before: dict[str, Any] = {}
    try:
        for override in values:
            set_value(composed, override, before)
        yield composed.config
    finally:
        for key, value in reversed(before.items()):
            OmegaConf.update(composed.config, key, value, merge=False)


def set_value(composed: Composition, override: Override, before: dict[str, Any]) -> None:
    """Set what one override says, with Hydra's rule that a mapping is merged into the block it is set on. `before`
    gets what to set back."""
    config, key, value = composed.config, override.key_or_group, override.value()
    if override.package is not None:
        raise ConfigError(f"{override.input_line}: only a group can be placed with @; write {key}=VALUE")
    check_reachable(composed, key + ("." if isinstance(value, dict) else ""))
    suites = key.startswith("evaluate.suites")
    try:
        back = "evaluate.suites" if suites else key
        before.setdefault(back, unresolved(config, back))
        named = value.get("suite") if suites and isinstance(value, dict) else None
        other = named and OmegaConf.select(config, f"{key}.suite") not in (None, named)  # it replaces the item
        OmegaConf.update(config, key, value, merge=not other)
        if suites:
            typed_items(config)
    except OmegaConfBaseException as error:
        item = OmegaConf.select(config, ".".join(key.split(".")[:3])) if key.count(".") > 1 else None
        fields = f"; {field_names(item.suite)}" if suites and item else ""
        raise ConfigError(f"{override.input_line}: {one_line(error)}{fields}") from error


def unresolved(config: DictConfig, key: str) -> Any:
    """A copy of the block or list at `key`, or its plain value with interpolations as they are written."""
    parent, _, name = key.rpartition(".")
    block: Any = OmegaConf.select(config, parent) if parent else config
    index: Any = int(name) if OmegaConf.is_list(block) else name
    if OmegaConf.is_interpolation(block, index) or OmegaConf.is_missing(block, index):
        values: Any = OmegaConf.to_container(block, resolve=False)
        return values[index]
    return copy.deepcopy(block[index])


def check_reachable(composed: Composition, key: str) -> None:
    """Refuse an override below a null block or past the end of a list: the group decides which blocks there are."""
    parts = key.split(".")
    group = parts[0]
    preset = f"{group}={composed.choices.get(group)}"
    for length in range(1, len(parts)):
        prefix = ".".join(parts[:length])
        block = OmegaConf.select(composed.config, prefix)
        if block is None:
            below = f"{prefix} is null with {preset}, so nothing below it can be set"
            raise ConfigError(f"{key.rstrip('.')}: {below}; choose a {group} preset that has it")
        if OmegaConf.is_list(block) and parts[length] and not int(parts[length]) < len(block):
            raise ConfigError(f"{key}: {prefix} has {len(block)} items with {preset}, and the first is number 0")


def try_out(conf: Path, folder: str | None, overrides: list[str]) -> None:
    """Compose here what Hydra refused before it called our sweeper, so that the error has our message."""
    searched = [f"hydra.searchpath=[file://{Path(folder).resolve()}]"] if folder else []
    with initialize_config_dir(str(conf), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        Expander(loader, "config", searched).expand({}, [word for word in overrides if not word.startswith("hydra")])
