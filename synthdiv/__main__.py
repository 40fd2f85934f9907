"""The command. `synthdiv a=b` runs one cell, `synthdiv -m a=b,c` a sweep; a verb is the first argument without `=`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from synthdiv.core.terminal import echo, echo_traceback, log_handler
from synthdiv.views.usage import VERBS, usage

OUTPUTS = "runtime.outputs="


def conf_dir() -> Path:
    """The configuration beside the package (an installed wheel), else beside the repository."""
    here = Path(__file__).resolve().parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def outputs(arguments: list[str]) -> Path:
    """Where verbs look: `runtime.outputs=…`, else `outputs` here."""
    folder = last(arguments, OUTPUTS)
    if folder[:1] in ("'", '"'):  # quoted for Hydra, as a launch needs it
        from hydra.core.override_parser.overrides_parser import OverridesParser

        folder = str(OverridesParser.create().parse_override(f"runtime.outputs={folder}").value())
    return Path(folder or "outputs")


def last(arguments: list[str], start: str) -> str:
    """What the last argument that begins with `start` says, or nothing."""
    return next((word.removeprefix(start) for word in reversed(arguments) if word.startswith(start)), "")


def hydra_main(arguments: list[str]) -> None:
    """Every run is a sweep: without `-m` Hydra would ignore the launcher."""
    import hydra
    from hydra._internal.hydra import Hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from synthdiv.study.schema import refuse_unknown, schema

    ConfigStore.instance().store(name="cell", node=schema(), provider="synthdiv")
    namespace = options(arguments)
    if not namespace.shell_completion:
        refuse_unknown(namespace.overrides, VERBS)
    flags = [word for word in arguments if word not in (*namespace.overrides, "-m", "--multirun", "-r", "--run")]
    # Hydra composes before the items of evaluate.suites have their fields: `++` adds them, our expansion checks them.
    words = [f"++{word}" if word.startswith("evaluate.suites.") else word for word in namespace.overrides]
    if not (namespace.hydra_help or namespace.cfg or namespace.info or namespace.shell_completion):
        words, flags = words if namespace.multirun else ["hydra.sweeper.cells=1", *words], ["--multirun", *flags]
    sys.argv = ["synthdiv", *words, *flags]

    # It composes everything only to read hydra.mode, and every run is a sweep.
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def app(_config: object) -> None:
        raise AssertionError("every run is a sweep; Hydra never runs a single job")

    try:
        app()
    except (
        AssertionError,
        AttributeError,
        ValueError,
        HydraException,
        OmegaConfBaseException,
    ):  # ours may say it better
        from synthdiv.study.expand import try_out

        try_out(conf_dir(), namespace.config_dir, namespace.overrides)
        raise


def options(arguments: list[str]) -> argparse.Namespace:
    """Hydra's options, with overrides before and after them. Hydra refuses those that are wrong."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("overrides", nargs="*")
    for names in ("--help -h", "--hydra-help", "--resolve", "--run -r", "--multirun -m", "--shell-completion -sc"):
        parser.add_argument(*names.split(), action="store_true")
    for names in ("--cfg -c", "--package -p", "--config-path -cp", "--config-name -cn", "--config-dir -cd"):
        parser.add_argument(*names.split(), nargs="?")
    parser.add_argument("--experimental-rerun", nargs="?")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    return parser.parse_known_intermixed_args(arguments)[0]


def verb(name: str, arguments: list[str]) -> int:
    """Run one verb; `plan` goes through Hydra like a launch."""
    if name == "plan":
        os.environ["SYNTHDIV_PLAN"] = "json" if "--json" in arguments else "text"
        hydra_main([word for word in arguments if word != "--json"])
        return 0
    from synthdiv.core.store import require_format
    from synthdiv.core.types import ConfigError

    root = outputs(arguments)
    require_format(root)
    if name == "export":
        from synthdiv.views.export import export

        words = [word for word in arguments if word != "--adapter" and not word.startswith("runtime.outputs=")]
        return export(root, words, "--adapter" not in arguments)
    more = {
        "publish": ("track=", "track.name=", "track.project=", "track.entity="),
        "dashboard": ("track.project=", "track.entity="),
        "report": ("report.measures=",),
        "status": ("--json", "--watch"),
        "trace": ("--json", "report.show_completions="),
    }
    takes = ("runtime.outputs=", *more.get(name, ()))
    words = [word for word in arguments if not (word in takes or word.startswith(tuple(w for w in takes if "=" in w)))]
    refused = [word for word in words if "=" in word or word.startswith("-")] + words[0 if name == "doctor" else 1 :]
    if refused:
        named = {"doctor": "", "trace": "the id of a prompt, "}.get(name, "the name of a sweep, ")
        raise ConfigError(f"{name} {refused[0]}: `synthdiv {name}` takes {named}{', '.join(takes)} and nothing else")
    if name == "status":
        from synthdiv.views.show import show_status

        return show_status(root, words[0] if words else None, "--json" in arguments, "--watch" in arguments)
    if name == "doctor":
        from synthdiv.views.doctor import examine

        return examine(root)
    if name == "trace":
        from synthdiv.views.trace import trace

        if not any(words):
            raise ConfigError("trace: needs the id of a prompt; every mix.parquet and rows.jsonl has them")
        completions = last(arguments, "report.show_completions=").lower() == "true"
        return trace(root, words[0], "--json" in arguments, completions)
    if not any(words):
        raise ConfigError(f"{name}: needs the name of a sweep; `synthdiv status` lists them")
    if name in ("publish", "dashboard"):
        from synthdiv.views.track.dashboard import dashboard
        from synthdiv.views.track.publish import publish, track_words

        run = publish if name == "publish" else dashboard
        return run(root, words[0], track_words([word for word in arguments if word.startswith("track")]))
    from synthdiv.views.report.page import write_report

    measures = last(arguments, "report.measures=").strip("[]").split(",")
    page = write_report(root, words[0], [measure.strip() for measure in measures if measure.strip()])
    echo(page.with_name("answer.txt").read_text(encoding="utf-8") + str(page))
    return 0


def main() -> None:
    """Entry point: a user's mistake is a message, not a traceback, unless SYNTHDIV_DEBUG=1."""
    logger = logging.getLogger("synthdiv")
    logger.handlers, logger.level, logger.propagate = [log_handler()], logging.INFO, False
    arguments = sys.argv[1:]
    if os.environ.get("SYNTHDIV_DEBUG") == "1":
        sys.exit(dispatch(arguments))
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach `explain`
    try:
        code = dispatch(arguments)
    except KeyboardInterrupt:
        echo("stopped; unfinished work is kept, the same command goes on", error=True)
        code = 130
    except BrokenPipeError:
        code = 141
    except Exception as error:
        code = explain(error)
    sys.exit(code)


def dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["measure"]:  # it has options and a help of its own, and nothing to do with Hydra
        from synthdiv.views.file_scores.command import measure_file

        return measure_file(arguments[1:])
    if arguments[:1] == ["judge"]:
        from synthdiv.views.judge.verb import judge_file

        return judge_file([word for word in arguments[1:] if not word.startswith(OUTPUTS)], outputs(arguments))
    if "--version" in arguments:
        from synthdiv import __version__

        echo(f"synthdiv {__version__}")
        return 0
    if not arguments or "--help" in arguments or "-h" in arguments:
        verbs = [word for word in arguments[:1] if word in VERBS]
        folders = [conf_dir(), *filter(None, [options(arguments).config_dir])]
        echo(usage(list(map(Path, folders)), *verbs))
        return 0
    if arguments[0] in VERBS:
        return verb(arguments[0], arguments[1:])
    hydra_main(arguments)
    return 0


def explain(error: Exception) -> int:
    """Print what a user can act on; anything else is a bug and keeps its traceback."""
    from synthdiv.core.types import SynthdivError

    if isinstance(error, SynthdivError):
        for line in str(error).splitlines():
            echo(f"error: {line}", error=True)
        return 2
    from synthdiv.core.store import disk_full

    if disk_full(error):
        advice = "What is built and what is half built is kept. Free some space and run the same command again."
        echo(f"error: no space left on the disk of the outputs ({error}). {advice}", error=True)
        return 2
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, HydraException | OmegaConfBaseException):
        from synthdiv.study.hydra_errors import one_line

        echo(f"error: {one_line(error)}", error=True)
        return 2
    echo_traceback(error)
    return 1


if __name__ == "__main__":
    main()
