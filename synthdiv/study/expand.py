"""From overrides to cells: composed once per distinct choice of groups, plain values set on that one configuration."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import pickle
from collections.abc import Iterable, Iterator
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

from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import typed_items
from synthdiv.study.config import Cell
from synthdiv.study.grid import GridSpec, Words, combinations

BLOCKS = tuple(item.name for item in dataclasses.fields(Cell))


@dataclass(frozen=True)
class Point:
    """One point of the grid: its overrides as a user would type them, the choice of groups, and the cell they give.
    `config` are the words that say where the presets of the user's own are."""

    overrides: tuple[str, ...]
    choices: dict[str, str]
    cell: Cell
    config: tuple[str, ...] = ()


class Expander:
    """Composes cells through Hydra's own loader.

    A block of a cell (a field of `Cell`) is converted once for each way it is set: pickled, because cells share no
    object and unpickling is the fastest copy.
    """

    def __init__(self, loader: Any, config_name: str, hydra_overrides: list[str]):
        assert isinstance(loader, ConfigLoaderImpl)
        self.loader, self.config_name, self.hydra_overrides = loader, config_name, hydra_overrides
        self.parser = OverridesParser.create(loader)
        self.config = own_config(loader, config_name)
        self._parsed: dict[str, Override] = {}
        self._composed: dict[Words, DictConfig] = {}
        self._texts: dict[Words, dict[str, str]] = {}  # each block as composed
        self._choices: dict[Words, dict[str, str]] = {}
        self._groups: dict[str, bool] = {}
        self._blocks: dict[tuple[str | Words, Words], bytes] = {}

    def expand(self, params: dict[str, str], arguments: list[str]) -> list[Point]:
        """The product of `params`, as an experiment file has them, and the command line."""
        return self.points(GridSpec(params), arguments)

    def points(self, spec: GridSpec, arguments: list[str]) -> list[Point]:
        """Every cell of a grid; all that is wrong with any of them is one error."""
        points, problems = [], []
        for words in combinations(spec, arguments, self.parse):
            try:
                points.append(self.point(words))
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(dict.fromkeys(problems))
        return points

    def parse(self, words: Iterable[str]) -> list[Override]:
        """Overrides, each text parsed once."""
        words = list(words)
        fresh = [word for word in dict.fromkeys(words) if word not in self._parsed]
        self._parsed |= zip(fresh, self.parser.parse_overrides(fresh), strict=True)
        return [self._parsed[word] for word in words]

    def point(self, words: Iterable[str]) -> Point:
        """The cell that these overrides give; none of them is a sweep."""
        parsed = self.parse(words)
        try:
            groups = tuple(str(override.input_line) for override in parsed if self._is_group(override.key_or_group))
            values = [override for override in parsed if not self._is_group(override.key_or_group)]
            self._compose(groups)
            return Point(tuple(words), dict(self._choices[groups]), self._cell(groups, values), self.config)
        except (OmegaConfBaseException, HydraException) as error:
            raise ConfigError(one_line(error)) from error

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:
            self._groups[key] = self.loader.repository.group_exists(key)
        return self._groups[key]

    def _compose(self, groups: Words) -> DictConfig:
        if groups not in self._composed:
            config = self.loader.load_configuration(
                self.config_name, [*self.hydra_overrides, *groups], RunMode.RUN, from_shell=False
            )
            typed_items(config)
            self._texts[groups] = {name: OmegaConf.to_yaml(OmegaConf.masked_copy(config, name)) for name in BLOCKS}
            chosen = config.hydra.runtime.choices.items()
            self._choices[groups] = {str(key): str(value) for key, value in chosen if "/" not in str(key)}
            self._composed[groups] = config
        return self._composed[groups]

    def _cell(self, groups: Words, values: list[Override]) -> Cell:
        """A cell from its blocks. A block depends on its preset and on what is set below it; one that interpolates
        depends on every choice and value."""
        every = tuple(str(override.input_line) for override in values)
        words, keys = dict[str, Words](), dict[str, tuple[str | Words, Words]]()
        for name, text in self._texts[groups].items():
            own = tuple(word for word, value in zip(every, values, strict=True) if block_of(value) == name)
            tied = any("${" in given for given in (text, *own))
            words[name] = every if tied else own
            keys[name] = ((name, *groups) if tied else text, words[name])
        fresh = [name for name, key in keys.items() if key not in self._blocks]
        if fresh:
            needed = {word for name in fresh for word in words[name]}
            with changed(self._compose(groups), [value for value in values if value.input_line in needed]) as config:
                for name in fresh:
                    part = config[name]
                    live = OmegaConf.to_object(part) if OmegaConf.is_config(part) else part
                    self._blocks[keys[name]] = pickle.dumps(live)
        return Cell(**{name: pickle.loads(self._blocks[key]) for name, key in keys.items()})


def own_config(loader: ConfigLoaderImpl, name: str) -> tuple[str, ...]:
    """`--config-dir` and `--config-name` as they were given; the folder absolute, because another command may be typed
    elsewhere."""
    named = ("--config-name", name) if name != "config" else ()
    places = loader.config_search_path.get_path()
    folders = [str(place.path).removeprefix("file://") for place in places if place.provider == "command-line"]
    return (*named, *(word for folder in folders for word in ("--config-dir", folder)))


def block_of(override: Override) -> str:
    return override.key_or_group.split(".")[0]


@contextlib.contextmanager
def changed(config: DictConfig, values: list[Override]) -> Iterator[DictConfig]:
    """`config` with these values set, and as it was afterwards."""
    before: dict[str, Any] = {}  # whole blocks: a list can be replaced after one of its items was set
    try:
        for override in values:
            below = "." if isinstance(override.value(), dict) else ""  # a mapping is merged into what is there
            check_reachable(config, override.key_or_group + below)
            block = block_of(override)
            if block not in before:
                before[block] = copy.deepcopy(config._get_node(block))
            ConfigLoaderImpl._apply_overrides_to_config([override], config)
        yield config
    finally:
        for block, node in before.items():
            config.__dict__["_content"][block] = node
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
