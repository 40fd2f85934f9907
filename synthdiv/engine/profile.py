"""What a cluster needs said: a profile, and the template of the script that is submitted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError

TEMPLATE = "slurm/job.sbatch"


@dataclass
class Profile:
    """What a cluster needs said. `options` are further ones of sbatch (true: one without a value); `stages` those of
    single stages, beyond these or instead (false: not here), where answers by a backend other than hf are a stage
    of its name if there is one, else `generate`; `setup` are lines of the script before the work; `template` replaces
    `launchers/slurm/job.sbatch`."""

    partition: str | None = None
    account: str | None = None
    time: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)
    template: str | None = None

    @classmethod
    def of(cls, path: str | None, said: dict[str, Any]) -> Profile:
        """A profile's file, and above it what the command or an experiment said."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        told = {name: value for name, value in said.items() if value}
        where = f"hydra.launcher.profile={path}" if path else "hydra.launcher"
        try:
            base = OmegaConf.structured(cls)
            found = OmegaConf.to_object(OmegaConf.merge(base, in_file(path) if path else {}, told))
        except OSError as error:
            raise ConfigError(f"{where}: {error.strerror}; launchers/slurm/example.yaml is one") from None
        except (OmegaConfBaseException, ValueError) as error:
            names = ", ".join(item.name for item in dataclasses.fields(cls))
            raise ConfigError(f"{where}: {str(error).splitlines()[0]}; it has {names}") from None
        assert isinstance(found, cls)
        for name, value in [pair for part in (found.options, *found.stages.values()) for pair in part.items()]:
            if isinstance(value, list | dict):
                raise ConfigError(f"{where}: {name} is {value}; an option of sbatch is a text, a number, true or false")
        for limit in (found.time, *(part.get("time") for part in (found.options, *found.stages.values()))):
            if str(limit).isdecimal():
                why = "YAML reads 4:00:00 without quotes as a number of seconds, and Slurm a number as minutes"
                raise ConfigError(f"{where}: time is {limit}; write it in quotes, as '4:00:00': {why}")
        return found

    def shape(self, node: Node) -> tuple[tuple[str, Any], ...]:
        """What the stage of a node needs, as options of sbatch."""
        plain = {"partition": self.partition, "account": self.account, "time": self.time}
        every = plain | self.options | self.stages.get(node.stage.kind, self.stages.get(node.stage.name, {}))
        return tuple((name, value) for name, value in sorted(every.items()) if value is not None and value is not False)


def in_file(path: str) -> dict[str, Any]:
    """The YAML of a profile. A time as 4:00:00 stays a text: YAML takes it for a number of seconds."""
    import yaml

    def number(loader: Any, node: Any) -> Any:
        return node.value if ":" in node.value else loader.construct_yaml_int(node)

    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("tag:yaml.org,2002:int", number)
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), loader) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"is no YAML ({' '.join(str(error).split())})") from None


def template(path: str | None) -> Path:
    """The script's template: the one named, else ours, beside the package or the repository."""
    if path:
        if not Path(path).is_file():
            raise ConfigError(f"hydra.launcher.template={path}: no such file; launchers/slurm/job.sbatch is one")
        return Path(path)
    here = Path(__file__).resolve().parents[1]
    beside = here / "launchers" / TEMPLATE
    return beside if beside.is_file() else here.parent / "launchers" / TEMPLATE
