"""What the documentation says is true: commands run, fields exist, links lead somewhere, generated pages are fresh."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hydra_plugins.synthdiv import plugins
from synthdiv.core.stage import Stage
from synthdiv.study.schema import known_keys
from synthdiv.views.usage import VERBS
from tests import fields_page
from tests.conftest import ROOT
from tests.outputs_page import stages_with_files, undocumented
from tests.test_fields import stages

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "launchers" / "README.md", ROOT / "outputs" / "README.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
START = re.compile(r"^\s*(?:[A-Z_]+=\S+ )*(?:\.venv/bin/synthdiv|synthdiv|launchers/(?:local|node)\.sh) (?!\w+,)")

# What a reader puts in place of a word that is not to be typed as it stands.
READERS_OWN = {
    "…": "experiment=demo",
    "student=…": "student=llama_8b",
    "train=…": "train=lora",
    "train=...": "train=lora",
    "FILE": "answers.jsonl",
    "generators.models.0.hosted.id=NAME": "generators.models.0.hosted.id=model",
}
# Appended to all launches of the demo but the plain one, whose cells take seconds.
FEW_CELLS = ["mix=human", "generators=toy_small", "student=toy_small", "hydra.sweeper.also=[]"]
# Commands that no test can run, each with the reason.
NOT_RUN: dict[str, str] = {
    "synthdiv measure --encoder": "names an option",
}
REAL_VERDICTS = "alpaca_eval_gpt4"  # in the commands that tests/views/judge/test_judge.py runs on real verdicts


def code_blocks(text: str) -> Iterator[str]:
    """The lines of all code blocks, fenced or indented, with continued lines joined."""
    fenced = False
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line


def commands() -> dict[str, str]:
    """Every command of the documentation, in code blocks and in backticks, without its comment, and its first page."""
    actual: dict[str, str] = {}
    for page, name in zip(PAGES, NAMES, strict=True):
        whole = [code for code in inline(page) if len(code.split()) > 2 or code.startswith("synthdiv -")]
        for line in [*code_blocks(page.read_text(encoding="utf-8")), *whole]:
            if START.match(line):
                actual.setdefault(" ".join(re.split(r"\s#\s", line)[0].split()), name)
    return actual


def inline(page: Path) -> list[str]:
    """The texts in backticks outside of fenced blocks."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def write_gz(path: Path, rows: list[dict[str, str]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def readers_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the commands of the documentation take for granted."""
    folder = tmp_path_factory.mktemp("reader")
    rows = [{"id": f"q{i}", "prompt": f"Say {i * 37} and {i}", "response": f"It is {i}."} for i in range(500)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [row | {"source": source} for row in rows[:60] for source in ("a", "b")]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    pairs = [row | {"first": "gpt-4", "second": "b", "winner": "first", "human": "second", "order": 0} for row in rows]
    pairs = [row | {"text_1": row["response"], "text_2": "It is."} for row in pairs]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    ratings = [row | {"source": "gpt-4", "verdict": index % 5, "human": 3} for index, row in enumerate(rows)]
    ratings = [row | {"prompt_id": row["id"], "value": row["verdict"]} for row in ratings]
    (folder / "ratings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ratings))
    questions = [{"question": f"What is {i} + 1?", "options": [f"{i}", f"{i + 1}"], "answer": "B"} for i in range(9)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    texts = [row | {"source": source, "article": row["prompt"]} for row in rows[:60] for source in ("human", "qwen")]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    for name, text in (("requests", "Break lock"), ("templates", "{prompt}, step")):
        lines = [{"prompt": f"{text} {i}"} for i in range(3)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    problems = [{"id": f"q{i}", "instruction": f"Add {i} to {i * 37}", "dataset": "gsm8k-test"} for i in range(1319)]
    write_gz(folder / "instructions_human.jsonl.gz", [row | {"response": "It is 4."} for row in problems])
    preset = (ROOT / "conf" / "generators" / "gsm8k_6b.yaml").read_text(encoding="utf-8")
    preset += (ROOT / "conf" / "generators" / "gsm8k_175b.yaml").read_text(encoding="utf-8")
    sources = sorted(set(re.findall(r"answerer: ([\w-]+)", preset)))
    written = [row | {"response": f"{source} says 4.", "source": source} for row in problems for source in sources]
    write_gz(folder / "instructions_synthetic.jsonl.gz", written)
    models = re.findall(r"answerer: (\S+)}", (ROOT / "conf/generators/alpaca_eval.yaml").read_text(encoding="utf-8"))
    fields = {"input": "", "licence": "CC-BY-NC-4.0(+model terms)", "dataset": "self-instruct-user"}
    asked = [fields | {"id": f"p{at}", "instruction": f"Say {at * 37}", "response": "Yes."} for at in range(805)]
    write_gz(folder / "alpaca_eval.jsonl.gz", [row | {"source": name} for row in asked for name in models])
    with gzip.open(folder / "corpus.txt.gz", "wt", encoding="utf-8") as file:
        file.write("One document.\n<|doc|>\nAnother one.\n")
    for name in ("my_model", "my_conf/models/a", "my_conf/models/b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        (folder / name / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, text in re.findall(r"`(\S+\.yaml)`:\n\n((?:    .*\n)+)", readme):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("command", [each for each in commands() if each not in NOT_RUN and REAL_VERDICTS not in each])
def test_a_command_of_the_documentation_runs(command, typed, readers_files, tmp_path, monkeypatch):
    """A launch is planned; a verb that needs a finished sweep or artifact gets as far as looking for it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "no-cache"))
    shutil.copytree(readers_files, tmp_path, dirs_exist_ok=True, copy_function=lambda a, b: Path(b).symlink_to(a))
    words = [READERS_OWN.get(word, word) for word in shlex.split(START.sub("", f"{command} ", count=1))]
    if "experiment=demo" in words and words != ["plan", "-m", "experiment=demo"]:
        words += FEW_CELLS
    launch = words and words[0] not in VERBS and not {"--help", "--version", "--cfg"} & set(words)
    done = typed(*(["plan"] if launch else []), *words)
    if words[0] in ("status", "report", "publish", "dashboard", "trace", "export", "doctor"):
        missing = ("no sweep", "no answer to a prompt", "names no model", "nothing to check")
        assert (done.code, any(text in done.err for text in missing)) == (2, True), done.err
    else:
        assert done.code == 0, done.err
        assert done.out


def test_every_command_that_is_not_run_is_one_of_the_documentation():
    assert NOT_RUN.keys() <= commands().keys()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_names_in_the_documentation_exist(page):
    """Verbs of inline commands, targets of make, programs of python, files, fields of the schema, extras of pip."""
    makefile, project = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "pyproject.toml"))
    text = page.read_text(encoding="utf-8")
    wrong = [code for code in inline(page) if not exists(code, page, makefile, project)]
    wrong += [line.strip() for line in code_blocks(text) if not exists(line.strip(), page, makefile, project)]
    assert wrong == []


def exists(code: str, page: Path, makefile: str, project: str) -> bool:
    """False for a name of ours that does not exist; what is no such name is not judged."""
    words = re.split(r"\s#\s", code)[0].split()
    if words[:1] == ["synthdiv"] and START.match(code):
        return words[1] in VERBS or "=" in words[1] or words[1].startswith("-") or words[1] in READERS_OWN
    if words[:1] == ["make"] and len(words) > 1:
        return f"\n{words[1]}:" in makefile
    if extra := re.search(r"synthdiv\[(\w+)\]", code):
        return f"\n{extra[1]} = [" in project
    if program := re.match(r"(?:\.venv/bin/)?python (?:-m (\S+)|(\S+\.py))", code):
        module = ROOT / f"{(program[1] or '').replace('.', '/')}.py"
        return (module if program[1] else ROOT / program[2]).exists()
    if re.fullmatch(r"[\w.]+(/[\w.]+)+\.(py|yaml|sh|md|sbatch)", code):
        examples = ("NAME", "mine", "tgi", "refusals")
        folders = (ROOT, ROOT / "synthdiv", page.parent)
        return any((folder / code).exists() for folder in folders) or any(name in code for name in examples)
    return not words or is_field(words[0].split("=")[0])


def is_field(key: str) -> bool:
    block, *fields = key.split(".")
    blocks = ("prompts", "generators", "mix", "student", "train", "evaluate", "judge")
    blocks += ("runtime", "track", "report", "hydra")
    endings = ("parquet", "jsonl", "json", "py", "md", "csv", "yaml", "gz")
    if block not in blocks or not fields or fields[-1] in endings or not re.fullmatch(r"[\w.]+", key):
        return True
    if block != "hydra":
        return any(map(known_keys().fullmatch, (key, key.replace(".N.", ".0."))))
    kinds = [plugins.SweeperConfig] if fields[0] == "sweeper" else [plugins.LocalConfig, plugins.SlurmConfig]
    return len(fields) < 2 or any(fields[1] in kind.__dataclass_fields__ for kind in kinds)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_a_file_or_a_heading(page):
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if link.startswith("http"):
            continue
        if not target.exists():
            wrong.append(link)
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            wrong += [] if anchor in {heading.lower().replace(" ", "-") for heading in headings} else [link]
    assert wrong == []


def test_every_page_that_code_presets_and_pages_name_exists():
    """A reader of a released package has no other page."""
    folders = ("synthdiv", "hydra_plugins", "conf", "launchers", "benchmarks", "tests", "docs")
    files = [*PAGES, *(file for folder in folders for file in (ROOT / folder).rglob("*.*"))]
    texts = {file: file.read_text(encoding="utf-8") for file in files if file.suffix in (".py", ".yaml", ".md", ".sh")}
    pages = {page.name for page in (*PAGES, *ROOT.glob("*.md"))}
    named = {name: file.name for file, text in texts.items() for name in re.findall(r"\b[a-z_]+\.md\b", text)}
    assert {name: file for name, file in named.items() if name not in pages} == {}


def test_every_field_has_documentation():
    assert fields_page.undocumented() == []


def test_pages_of_docstrings_are_fresh():
    pages = {fields_page.PAGE: fields_page.page(), fields_page.GENERATORS: fields_page.generators_page()}
    fresh = all(page.read_text(encoding="utf-8") == text for page, text in pages.items())
    assert fresh, "run `make structure` (or `python -m tests.fields_page --write`)"


def test_help_lists_every_verb_and_the_version_is_ours(typed):
    text = typed("--help").out
    assert all(f"synthdiv {verb}" in text for verb in VERBS)
    assert typed("--version").out == "synthdiv 0.1.0\n"


def test_the_page_of_outputs_has_every_stage_and_what_a_study_writes(study):
    """Studies with judges, requests and questions are looked at where they are run. Suites have one row together."""
    names = {kind.name for kind in stages(Stage) if not kind.__module__.startswith("synthdiv.evaluate.")}
    names -= {"", "checkpoint"}
    assert names - stages_with_files().keys() == set()
    assert undocumented(study / "outputs") == set()
