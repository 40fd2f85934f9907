"""What several tests share: a tiny toy study on the command line, and one small trained model."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import gc
import json
import logging
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hydra._internal import config_loader_impl, defaults_list
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from synthdiv.__main__ import conf_dir
from synthdiv.study.expand import Expander
from tests.warm import Warm, read_at_import

os.environ.setdefault("OMP_NUM_THREADS", "1")  # models this small only wait for each other's threads
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background by a shell: children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile("everyday", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("everyday")

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    "prompts.toy.rows=60",
    "prompts.test=12",
    "generators.shard_rows=4",
    *(f"evaluate.suites.0.{budget}" for budget in ("words=60", "cap=4", "texts=6", "draws=2")),
    "evaluate.suites.1.prompts=2",
    "evaluate.respond.subset=4",
    "evaluate.respond.samples=2",
    "train.epochs=1",
    "student.pretrain.tokens=3000",
    "student.pretrain.toy.rows=200",
    *(f"generators.models.{index}.pretrain.tokens=3000" for index in range(4)),
    *(f"generators.models.{index}.pretrain.toy.rows=200" for index in range(4)),
]


@pytest.hookimpl(optionalhook=True)
def pytest_collection_finish() -> None:
    """What was imported stays: looking for cycles in it again and again took an eighth of the time of composing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Several workers share the files; all tests of Slurm run in one of them, because there is one cluster, and first:
    they take longest, and mostly wait."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "slurm" if "slurm" in nodeid.split("::")[0] else super()._split_scope(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            if "slurm" in self.workqueue:
                self.workqueue.move_to_end("slurm", last=False)
            super()._assign_work_unit(node)

    return ByFile(config, log)


warm = functools.cache(Warm)
PORTS = iter(range(20000 + os.getpid() % 1000 * 12, 32000))


def free_port() -> int:
    """A port for a server that is started later: below those that Linux hands out, and where no other process looks
    first."""
    for port in PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is left")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "synthdiv", *words]


def synthdiv(*words: str, cwd: Path, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would; `code` is the exit code that is expected (None: any)."""
    done = completed(words, cwd, env)
    assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr or code is None, done.stderr
    return done


def completed(words: tuple[str, ...], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command, forked where modules read the same environment when they are imported, else started anew."""
    environment = os.environ | env
    if warm().environment == read_at_import(environment):
        done = warm().start([*words], cwd, **env)
        return subprocess.CompletedProcess(words, done.wait(500), *done.output)
    return subprocess.run(command(*words), cwd=cwd, env=environment, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny study: human, single and multi, two seeds of one student. One worker of pytest runs
    it; each has a copy."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-study"
    with (shared.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            folder = tmp_path_factory.mktemp("study")
            synthdiv("-m", "mix=human,single,multi", "train.seed=0,1", "sweep=tiny", *TINY, cwd=folder)
            folder.rename(shared)
    return Path(shutil.copytree(shared, tmp_path_factory.mktemp("study") / "study"))


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> Iterator[None]:
    """In one process the same choices of our presets are composed once: many calls repeat one, and each takes .3 s.
    The files of a user are read each time."""
    load, loaded = Expander.load, dict[str, bytes]()

    def once(self: Expander, words: Iterable[str]) -> Any:
        words, paths = [*words], [str(each.path) for each in self.loader.get_search_path().get_path()]
        key = f"{paths} {self.config_name} {self.hydra_overrides} {words}"
        if self.config or "searchpath" in key or f"file://{conf_dir()}" not in paths:
            return load(self, words)
        if key not in loaded:
            loaded[key] = pickle.dumps(load(self, words))
        return pickle.loads(loaded[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Expander, "load", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def merged_once() -> Iterator[None]:
    """In one process the same presets are listed and merged once, most of the time of a composition, and a text
    is parsed once. Those of a user are merged each time."""
    select, load = config_loader_impl.create_defaults_list, OmegaConf.load
    merge = config_loader_impl.ConfigLoaderImpl._compose_config_from_defaults_list
    lists, merges, texts = dict[str, Any](), dict[tuple[str, bytes], bytes](), dict[str, bytes]()

    def ours(repo: Any) -> list[str]:
        """Where presets are, if only Hydra's, the schema and ours are used."""
        sources = [source.full_path() for source in repo.get_sources()]
        return sources if len(sources) <= 3 and f"file://{conf_dir()}" in sources else []

    def listed(repo: Any, config_name: str, overrides_list: list[Any], *rest: Any, **more: Any) -> Any:
        if not (sources := ours(repo)):
            return select(repo, config_name, overrides_list, *rest, **more)
        groups = [each.input_line for each in overrides_list if repo.group_exists(each.key_or_group)]
        key = f"{sources} {config_name} {groups} {rest} {more}"
        if key not in lists:
            lists[key] = select(repo, config_name, overrides_list, *rest, **more)
        values = defaults_list.Overrides(repo, overrides_list).config_overrides
        return dataclasses.replace(lists[key], config_overrides=values)

    def merged(self: Any, defaults: list[Any], repo: Any) -> Any:
        if not (sources := ours(repo)):
            return merge(self, defaults, repo)
        key = f"{sources} {defaults}", pickle.dumps(ConfigStore.instance().repo.get("cell.yaml"))
        if key not in merges:
            merges[key] = pickle.dumps(merge(self, defaults, repo))  # copied in a third of the time of `deepcopy`
        return pickle.loads(merges[key])

    def parsed(file: Any) -> Any:
        if isinstance(file, str | Path):
            return load(file)
        text = file.read()
        if text not in texts:
            file.seek(0)
            texts[text] = pickle.dumps(load(file))
        return pickle.loads(texts[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_loader_impl, "create_defaults_list", listed)
        patch.setattr(config_loader_impl.ConfigLoaderImpl, "_compose_config_from_defaults_list", merged)
        patch.setattr(OmegaConf, "load", parsed)
        yield


@dataclasses.dataclass(frozen=True)
class CommandResult:
    """What the command printed when it was called in this process."""

    code: int
    out: str
    err: str


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CommandResult]:
    """The command in this process, in an empty folder: as `synthdiv`, and seconds faster."""
    from synthdiv.__main__ import main

    logger = logging.getLogger("synthdiv")
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> CommandResult:
        monkeypatch.setenv("SYNTHDIV_PLAN", "0")
        monkeypatch.setenv("SYNTHDIV_DEBUG", "0")
        monkeypatch.setattr(sys, "argv", ["synthdiv", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        result = capsys.readouterr()
        return CommandResult(int(caught.value.code or 0), result.out, result.err)

    return run


FILES = [  # a study of files, as `write_files` writes them
    "prompts=files",
    "prompts.table.path=prompts.jsonl",
    "prompts.test=6",
    "generators.shard_rows=2",
    "student=text",
    "student.pretrain.text.path=corpus.txt",
    *(f"student.pretrain.{setting}" for setting in ("hidden=16", "layers=1", "vocabulary=300", "tokens=3000")),
    "train=toy",
    "train.epochs=1",
    "evaluate=toy",
    *(f"evaluate.suites.0.{budget}" for budget in ("words=20", "cap=4", "texts=3", "draws=2")),
    "evaluate.respond.subset=2",
    "evaluate.respond.samples=2",
    *(f"evaluate.respond.decodings.{index}.sampling.max_new_tokens=12" for index in range(2)),
]


def sources(*names: str, path: str = "answers.jsonl", family: str = "") -> str:
    """An override: recorded generators that answer from the file of `write_files`, each a family of its own."""
    models = [
        f"{{name: {name}, backend: recorded, facts: {{family: {family or name}}}, "
        f"recorded: {{answerer: {name}, path: {path}, id: id}}}}"
        for name in names
    ]
    return f"generators.models=[{','.join(models)}]"


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_files(folder: Path, count: int = 30) -> list[dict[str, object]]:
    """Prompts with human answers, answers of sources `one` and `two`, and a corpus; returns the prompts."""
    things = ("river", "engine", "garden", "letter", "planet", "violin", "bridge", "forest", "harbour", "window")
    rows: list[dict[str, object]] = [
        {
            "id": f"q{i}",
            "prompt": f"Say {i} of {things[i % 10]} and {i * 37}",
            "response": f"The {things[i % 7]} is {i}.",
        }
        for i in range(count)
    ]
    answers = [
        row | {"response": f"{name} says {row['response']}", "source": name} for row in rows for name in ("one", "two")
    ]
    write_rows(folder / "prompts.jsonl", rows)
    write_rows(folder / "answers.jsonl", answers)
    text = (f"{row['prompt']}. {row['response']} A {things[i % 3]}." for i, row in enumerate(rows * 5))
    (folder / "corpus.txt").write_text("\n<|doc|>\n".join(text), encoding="utf-8")
    return rows


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the artifacts of one module."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def prompts(root: Path) -> Any:
    """The built toy prompts of `tests.models.small`."""
    from tests.models.small import build, toy_prompts

    return build(root, toy_prompts())
