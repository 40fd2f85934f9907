"""The command. `synthdiv a=b` runs one cell, `synthdiv -m a=b,c` a sweep; a verb is the first argument without `=`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

VERBS = ("plan", "status", "report", "doctor")


def conf_dir() -> Path:
    """The configuration beside the package (an installed wheel), else beside the repository."""
    here = Path(__file__).resolve().parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def outputs(arguments: list[str]) -> Path:
    """Where verbs look: `runtime.outputs=…`, else `outputs` here."""
    given = [text.split("=", 1)[1] for text in arguments if text.startswith("runtime.outputs=")]
    return Path(given[-1] if given else "outputs")


def hydra_main(arguments: list[str]) -> None:
    """Every run is a sweep: without `-m` Hydra would ignore the launcher."""
    import hydra
    from hydra.core.config_store import ConfigStore

    from synthdiv.config import Cell
    from synthdiv.schema import refuse_unknown

    refuse_unknown([word for word in positional(arguments) if not word.startswith("-")])
    ConfigStore.instance().store(name="cell", node=Cell, provider="synthdiv")
    shows = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")
    if not any(word.split("=")[0] in (*shows, "-m", "--multirun") for word in arguments):
        arguments = ["--multirun", *arguments]
    sys.argv = ["synthdiv", *arguments]

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def app(_config: object) -> None:
        raise AssertionError("every run is a sweep; Hydra never runs a single job")

    app()


def positional(arguments: list[str]) -> list[str]:
    """Arguments that are overrides: not flags, nor the values of flags that take one."""
    taking = (
        "--config-dir",
        "-cd",
        "--config-name",
        "-cn",
        "--config-path",
        "-cp",
        "--cfg",
        "-c",
        "--package",
        "-p",
        "--info",
        "-i",
    )
    return [
        word
        for index, word in enumerate(arguments)
        if not word.startswith("-") and not (index and arguments[index - 1] in taking)
    ]


def verb(name: str, arguments: list[str]) -> int:
    """Run one verb; `plan` goes through Hydra like a launch."""
    words = [word for word in arguments if "=" not in word and not word.startswith("-")]
    root = outputs(arguments)
    if name == "plan":
        os.environ["SYNTHDIV_PLAN"] = "1"
        hydra_main(arguments)
        return 0
    if name == "status":
        from synthdiv.sweep.status import show_status

        return show_status(root, words[0] if words else None)
    if name == "doctor":
        from synthdiv.doctor import examine

        return examine(root)
    from synthdiv.report.main import write_report
    from synthdiv.types import ConfigError

    if not words:
        raise ConfigError("report: needs the name of a sweep; `synthdiv status` lists them")
    print(write_report(root, words[0], []))
    return 0


def main() -> None:
    """Entry point: a user's mistake is a message, not a traceback, unless SYNTHDIV_DEBUG=1."""
    logger, handler = logging.getLogger("synthdiv"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers, logger.level, logger.propagate = [handler], logging.INFO, False
    arguments = sys.argv[1:]
    if os.environ.get("SYNTHDIV_DEBUG") == "1":
        sys.exit(dispatch(arguments))
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach us, and are said in our words
    try:
        code = dispatch(arguments)
    except KeyboardInterrupt:
        print("stopped; unfinished work is kept, the same command goes on", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 141
    except Exception as error:
        code = explain(error)
    sys.exit(code)


def dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in VERBS:
        return verb(arguments[0], arguments[1:])
    hydra_main(arguments)
    return 0


def explain(error: Exception) -> int:
    """Print what a user can act on; anything else is a bug and keeps its traceback."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from synthdiv.types import SynthdivError

    if isinstance(error, SynthdivError):
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    if isinstance(error, HydraException | OmegaConfBaseException):
        from synthdiv.sweep.expand import one_line

        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    raise error


if __name__ == "__main__":
    main()
