"""Thin classes: Hydra accepts a Sweeper and a Launcher only if they are defined below `hydra_plugins`.

No postponed annotations here: Hydra executes this module before it is in `sys.modules`, where dataclasses look them up.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from synthdiv.core.fields import problems, setting
from synthdiv.core.types import ConfigError
from synthdiv.engine.profile import Profile
from synthdiv.study.grid import GridSpec


@dataclass
class SweeperConfig(GridSpec):
    """The grid of a sweep. On a command line, with quotes:

    'hydra.sweeper.zip=[{train.lr:"1e-3,1e-4",train.epochs:"1,2"}]'
    'hydra.sweeper.exclude=[{mix:human,train.seed:"1,2"}]'
    """

    _target_: str = "hydra_plugins.synthdiv.plugins.SynthdivSweeper"
    """The class of the sweeper; fixed."""


@dataclass
class InlineConfig:
    """This process builds everything."""

    _target_: str = "hydra_plugins.synthdiv.plugins.InlineLauncher"
    """The class of the launcher; fixed."""


@dataclass
class LocalConfig:
    """Worker processes on this machine."""

    _target_: str = "hydra_plugins.synthdiv.plugins.LocalLauncher"
    """The class of the launcher; fixed."""
    jobs: int = setting(0, least=0)
    """Number of workers. 0: as many as the accelerators allow, or one without an accelerator."""
    devices: int = setting(1, least=1)
    """Accelerators of each worker. With several, torchrun starts a rank for each."""


@dataclass
class SlurmConfig(Profile):
    """Jobs of a Slurm cluster, submitted from here. The fields from `partition` to `template` override the profile
    where they are given."""

    _target_: str = "hydra_plugins.synthdiv.plugins.SlurmLauncher"
    """The class of the launcher; fixed."""
    profile: str | None = None
    """Path of a YAML file with what jobs need on this cluster, as launchers/slurm/example.yaml; null: none."""
    group: int = setting(8, least=1)
    """The most nodes that one job builds."""
    requeues: int = setting(10, least=0)
    """How often a job that reached its time limit queues itself again."""
    detach: bool = False
    """Return once all jobs are submitted, instead of watching them."""


class EngineLauncher(Launcher):
    """Gets all cells at once and hands them to an engine."""

    schema: type = InlineConfig

    def __init__(self, **fields: Any):
        self.fields = fields

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    @abstractmethod
    def engine(self, frozen: Any, cell: Any, watcher: Any) -> Any:
        """The engine of a frozen sweep; `cell` has its runtime."""

    def problems(self, runtime: Any) -> list[str]:
        """What is wrong with its fields, and with devices that this machine does not have."""
        from synthdiv.engine.local import accelerators, environments
        from synthdiv.study.hydra_errors import no_launcher_field

        if added := self.fields.keys() - {item.name for item in dataclasses.fields(self.schema)}:
            return [no_launcher_field(name) for name in sorted(added)]
        wrong, device = problems(self.schema(**self.fields), "hydra.launcher"), runtime.device
        workers = self.schema is LocalConfig and device != "cpu" and not wrong
        if self.schema is SlurmConfig or not (workers or device.startswith("cuda")):
            return wrong
        names = accelerators()
        if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= len(names):
            wrong.append(f"runtime.device={device}: this process may use {len(names)} accelerators; choose auto")
        try:
            if workers and not wrong:
                environments(**self.fields, names=names)
        except ConfigError as error:
            wrong += error.problems
        return wrong

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """For other sweepers: compose the cells that they ask for, then run them all."""
        from synthdiv.launch import expander

        compose = expander(self.hydra_context.config_loader, self.config)
        self.run([compose.point(list(words)) for words in job_overrides])
        return []

    def run(self, points: list[Any]) -> None:
        """Run the cells. Raises SystemExit with the exit code where one failed."""
        from synthdiv.launch import launch

        code = launch(points, self.engine, self.problems(points[0].cell.runtime))
        if code:
            raise SystemExit(code)


class InlineLauncher(EngineLauncher):
    def engine(self, frozen: Any, cell: Any, watcher: Any) -> Any:
        from synthdiv.engine.inline import Inline

        return Inline(frozen, cell, watcher)


class LocalLauncher(EngineLauncher):
    schema = LocalConfig

    def engine(self, frozen: Any, cell: Any, watcher: Any) -> Any:
        from synthdiv.engine.local import Local

        return Local(frozen, cell, **self.fields, watcher=watcher)


class SlurmLauncher(EngineLauncher):
    schema = SlurmConfig

    def engine(self, frozen: Any, cell: Any, watcher: Any) -> Any:
        from synthdiv.engine.slurm import Slurm

        fields: dict[str, Any] = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in self.fields.items()
        }
        settings = {name: fields.pop(name) for name in ("group", "requeues", "detach")}
        return Slurm(frozen, cell, Profile.of(fields.pop("profile", None), fields), **settings, watcher=watcher)


class SynthdivSweeper(Sweeper):
    """Expands the grid itself, because Hydra composes every cell again (82 ms each)."""

    def __init__(self, **fields: Any):
        pass  # the fields are read with those of each experiment

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.composed = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        from synthdiv.launch import expander

        arguments = [word.removeprefix("++") if word.startswith("++evaluate.suites.") else word for word in arguments]
        compose = expander(self.context.config_loader, self.composed)
        parts = compose.experiments(arguments)
        configs = [self.composed] if len(parts) == 1 else [compose.load(words) for words in parts]
        launchers = {str(config.hydra.runtime.choices["hydra/launcher"]): config for config in configs}
        if len(launchers) > 1:
            raise ConfigError(f"these experiments choose the launchers {', '.join(launchers)}; add hydra/launcher=NAME")
        launcher = Plugins.instance().instantiate_launcher(self.context, self.task, configs[0])
        if not isinstance(launcher, EngineLauncher):
            raise ConfigError(f"hydra/launcher={', '.join(launchers)}: choose inline, local or slurm")
        # unresolved: an interpolation in `params` is of each cell, not of what the file composes to
        blocks: list[Any] = [OmegaConf.to_container(config.hydra.sweeper, resolve=False) for config in configs]
        launcher.run(compose.union([GridSpec.read(**block) for block in blocks], parts, arguments))


store = ConfigStore.instance()
store.store(group="hydra/sweeper", name="synthdiv", node=SweeperConfig, provider="synthdiv")
store.store(group="hydra/launcher", name="inline", node=InlineConfig, provider="synthdiv")
store.store(group="hydra/launcher", name="local", node=LocalConfig, provider="synthdiv")
store.store(group="hydra/launcher", name="slurm", node=SlurmConfig, provider="synthdiv")
# The first in the defaults list of config.yaml: an experiment, which is named later, may override these.
overrides = {"sweeper": "synthdiv", "launcher": "inline", "hydra_logging": "none"}
defaults = {"defaults": [{f"override /hydra/{group}": name} for group, name in overrides.items()]}
store.store(name="launch_defaults", node=defaults, provider="synthdiv")
