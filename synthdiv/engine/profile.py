"""The profile of a cluster, and the template of the script that is submitted."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError

TEMPLATE = "slurm/job.sbatch"


@dataclass
class Profile:
    """What jobs need on one cluster."""

    partition: str | None = None
    """Partition of the jobs; null: the cluster's default."""
    account: str | None = None
    """Account that pays for the jobs; null: the user's default."""
    time: str | None = None
    """Time limit of a job, as '4:00:00'; null: the partition's default."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of sbatch, by name without dashes; true: an option without a value."""
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of single stages, which override `options` (false: leave the option out). Answers of a backend other than
    hf take the entry with the backend's name, else `generate`."""
    setup: list[str] = field(default_factory=list)
    """Lines of the script before the work, as `module load cuda`."""
    template: str | None = None
    """Path of a template that replaces `launchers/slurm/job.sbatch`; null: that one."""

    @classmethod
    def of(cls, path: str | None, overrides: dict[str, Any]) -> Profile:
        """The profile of a file; `overrides` come from the command line or an experiment."""
        overrides = {name: value for name, value in overrides.items() if value}
        where = f"hydra.launcher.profile={path}" if path else "hydra.launcher"
        try:
            base = OmegaConf.structured(cls)
            profile = OmegaConf.to_object(OmegaConf.merge(base, read_yaml(path) if path else {}, overrides))
        except OSError as error:
            raise ConfigError(f"{where}: {error.strerror}; launchers/slurm/example.yaml is an example") from None
        except (OmegaConfBaseException, ValueError) as error:
            names = ", ".join(item.name for item in dataclasses.fields(cls))
            raise ConfigError(f"{where}: {str(error).splitlines()[0]}; the fields are {names}") from None
        assert isinstance(profile, cls)
        for name, value in [pair for part in (profile.options, *profile.stages.values()) for pair in part.items()]:
            if isinstance(value, list | dict):
                raise ConfigError(f"{where}: {name} is {value}; give a text, a number, true or false")
            if not re.fullmatch("[a-z][a-z-]*", str(name)) or "\n" in str(value):
                raise ConfigError(f"{where}: {name!r}={value!r} is no option of sbatch and its value, in one line")
        for limit in (profile.time, *(part.get("time") for part in (profile.options, *profile.stages.values()))):
            if str(limit).isdecimal():
                reason = "YAML reads 4:00:00 without quotes as seconds, and Slurm reads a number as minutes"
                raise ConfigError(f"{where}: time is {limit}; write it in quotes, as '4:00:00': {reason}")
        return profile

    def shape(self, node: Node) -> tuple[tuple[str, Any], ...]:
        """The options of sbatch for the stage of a node, sorted by name."""
        common = {"partition": self.partition, "account": self.account, "time": self.time}
        merged = common | self.options | self.stages.get(node.stage.kind, self.stages.get(node.stage.name, {}))
        return tuple(
            (name, value) for name, value in sorted(merged.items()) if value is not None and value is not False
        )


def read_yaml(path: str) -> dict[str, Any]:
    """The file of a profile. A time as 4:00:00 stays a text, which YAML reads as a number of seconds."""
    import yaml

    def number(loader: Any, node: Any) -> Any:
        return node.value if ":" in node.value else loader.construct_yaml_int(node)

    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("tag:yaml.org,2002:int", number)
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), loader) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML ({' '.join(str(error).split())})") from None


def template(path: str | None) -> Path:
    """The path of the script's template: the one named, else ours, beside the package or in the repository."""
    if path:
        if not Path(path).is_file():
            raise ConfigError(f"hydra.launcher.template={path}: no such file; start from launchers/slurm/job.sbatch")
        return Path(path)
    package = Path(__file__).resolve().parents[1]
    installed = package / "launchers" / TEMPLATE
    return installed if installed.is_file() else package.parent / "launchers" / TEMPLATE
