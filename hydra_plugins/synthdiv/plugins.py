"""Thin classes: Hydra accepts a Sweeper and a Launcher only if they are defined below `hydra_plugins`.

No postponed annotations here: Hydra executes this module before it is in `sys.modules`, where dataclasses look them up.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class SweeperConfig:
    """`params` is the grid of an experiment file: key → values as they would be typed. Each of `also` is a further
    grid: `params` with these keys changed. Axes in a group of `zip` go together; combinations in `exclude` are left
    out. More than `cells` cells are asked for first. On a command line:

    'hydra.sweeper.zip=[{train.lr:"1e-3,1e-4",train.epochs:"1,2"}]'
    'hydra.sweeper.exclude=[{mix:human,train.seed:"1,2"}]'
    """

    _target_: str = "hydra_plugins.synthdiv.plugins.SynthdivSweeper"
    params: dict[str, Any] = field(default_factory=dict)
    also: list[dict[str, Any]] = field(default_factory=list)
    zip: list[dict[str, Any]] = field(default_factory=list)
    exclude: list[dict[str, Any]] = field(default_factory=list)
    cells: int = 1000


@dataclass
class InlineConfig:
    """This process runs everything."""

    _target_: str = "hydra_plugins.synthdiv.plugins.InlineLauncher"


@dataclass
class LocalConfig:
    """`jobs` worker processes on this machine (0: as many as its accelerators allow, one without), each with `devices`
    accelerators."""

    _target_: str = "hydra_plugins.synthdiv.plugins.LocalLauncher"
    jobs: int = 0
    devices: int = 1


@dataclass
class SlurmConfig:
    """Jobs of a Slurm cluster, queued from here. `profile` is a file with what the cluster needs said: partition,
    account, time, further `options` of sbatch, those of single `stages`, `setup` lines and a `template` of the script;
    each can be said here too. A job builds up to `group` nodes and queues itself again at its time limit up to
    `requeues` times. `detach` returns once all is queued."""

    _target_: str = "hydra_plugins.synthdiv.plugins.SlurmLauncher"
    profile: str | None = None
    partition: str | None = None
    account: str | None = None
    time: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, Any] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)
    template: str | None = None
    group: int = 8
    requeues: int = 10
    detach: bool = False


class EngineLauncher(Launcher):
    """Gets all cells at once and hands them to an engine."""

    def __init__(self, **fields: Any):
        self.fields = fields

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    @abstractmethod
    def engine(self, frozen: Any, cell: Any, watcher: Any) -> Any:
        """The engine of a frozen sweep; `cell` has its runtime."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """For other sweepers: compose the cells they ask for, then run them all."""
        from synthdiv.study.expand import Expander

        hydra = self.config.hydra
        expander = Expander(self.hydra_context.config_loader, hydra.job.config_name, list(hydra.overrides.hydra))
        code = self.run([expander.point(list(words)) for words in job_overrides])
        if code:
            raise SystemExit(code)
        return []

    def run(self, points: list[Any]) -> int:
        from synthdiv.launch import launch

        return launch(points, self.engine)


class InlineLauncher(EngineLauncher):
    def engine(self, frozen: Any, cell: Any, watcher: Any) -> Any:
        from synthdiv.engine.inline import Inline

        return Inline(frozen, cell, watcher)


class LocalLauncher(EngineLauncher):
    def engine(self, frozen: Any, cell: Any, watcher: Any) -> Any:
        from synthdiv.engine.local import Local

        return Local(frozen, cell, **self.fields, watcher=watcher)


class SlurmLauncher(EngineLauncher):
    def engine(self, frozen: Any, cell: Any, watcher: Any) -> Any:
        from omegaconf import OmegaConf

        from synthdiv.engine.profile import Profile
        from synthdiv.engine.slurm import Slurm

        said = {name: value for name, value in self.fields.items() if value is not None}
        said = {name: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for name, v in said.items()}
        own = {name: said.pop(name) for name in ("group", "requeues", "detach")}
        return Slurm(frozen, cell, Profile.of(said.pop("profile", None), said), **own, watcher=watcher)


class SynthdivSweeper(Sweeper):
    """Expands the grid itself, because Hydra's way composes every cell again (82 ms each)."""

    def __init__(self, **fields: Any):
        self.fields = fields

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from synthdiv.core.types import ConfigError
        from synthdiv.launch import expand
        from synthdiv.study.grid import GridSpec

        if not isinstance(self.launcher, EngineLauncher):
            raise ConfigError(f"hydra/launcher={type(self.launcher).__name__}: choose inline, local or slurm")
        assert self.hydra_context
        points = expand(self.hydra_context.config_loader, self.config, GridSpec.read(**self.fields), arguments)
        code = self.launcher.run(points)
        if code:
            raise SystemExit(code)


store = ConfigStore.instance()
store.store(group="hydra/sweeper", name="synthdiv", node=SweeperConfig, provider="synthdiv")
store.store(group="hydra/launcher", name="inline", node=InlineConfig, provider="synthdiv")
store.store(group="hydra/launcher", name="local", node=LocalConfig, provider="synthdiv")
store.store(group="hydra/launcher", name="slurm", node=SlurmConfig, provider="synthdiv")
