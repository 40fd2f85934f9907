"""The figures of the structure, read from the code. `make structure` writes them into docs/structure.md."""

from __future__ import annotations

import ast
import re
import statistics
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "structure.md"
BEGIN, END = "<!-- made by `make structure` -->", "<!-- end -->"

# Lines that each room may have today, comments and blank lines included: no room grows unseen. `GOALS` are those of the
# first design; why they are not reached stands in docs/decisions.md, "The structure".
BUDGETS = {
    "core": 2400,
    "measures": 4360,
    "models": 1160,
    "prompts": 1970,
    "generate": 2940,
    "mix": 1120,
    "train": 2410,
    "evaluate": 3800,
    "study": 2780,
    "engine": 1790,
    "views": 6270,
    "command": 350,
    "hydra_plugins": 200,
}
GOALS = {
    "core": 2200, "measures": 3300, "models": 700, "prompts": 1100, "generate": 1800, "mix": 700, "train": 2200,
    "evaluate": 1700, "study": 1500, "engine": 1200, "views": 3200,
}  # fmt: skip
TOTAL, TOTAL_GOAL = 31490, 20000
CAUSES = ("logic", "signatures and fields", "documentation", "imports", "blank")
MEDIAN, MEDIAN_GOAL = 120, 120
LONGEST = 300
CONTRACTS = {"__init__", "watcher"}  # basenames that several rooms may use: each implements the same contract


@cache
def modules() -> dict[str, Path]:
    """Every module of the program by its dotted name."""
    files = [file for top in ("synthdiv", "hydra_plugins") for file in sorted((ROOT / top).rglob("*.py"))]
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files}
    return {name: file for file, name in names.items()}


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def room(module: str) -> str:
    """The room of a module; `command` for what lies directly in the package."""
    top, *parts = module.split(".")
    if top == "hydra_plugins":
        return top
    return parts[0] if parts and (ROOT / top / parts[0]).is_dir() else "command"


def rooms() -> dict[str, list[int]]:
    """The lines of each file that is not empty, by room."""
    sizes: dict[str, list[int]] = {name: [] for name in BUDGETS}
    for module, file in modules().items():
        if count := lines(file):
            sizes.setdefault(room(module), []).append(count)
    return sizes


def causes(file: Path) -> Counter[str]:
    """What the lines of a file are for, by the columns of `CAUSES`; a line that serves two counts for the first."""
    text = file.read_text(encoding="utf-8")
    of = dict.fromkeys(range(1, len(text.splitlines()) + 1), "logic")
    of |= {number: "blank" for number, line in enumerate(text.splitlines(), 1) if not line.strip()}
    of |= {number: "documentation" for number, line in enumerate(text.splitlines(), 1) if line.lstrip()[:1] == "#"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            kind, last = "imports", node.end_lineno
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            kind, last = "documentation", node.end_lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            kind, last = "signatures and fields", node.body[0].lineno - 1
        elif isinstance(node, ast.AnnAssign) and node.col_offset:
            kind, last = "signatures and fields", node.end_lineno
        else:
            continue
        of |= {number: kind for number in range(node.lineno, (last or 0) + 1) if of[number] == "logic"}
    return Counter(of.values())


def over_long() -> dict[str, int]:
    return {module: lines(file) for module, file in modules().items() if lines(file) > LONGEST}


def repeated_names() -> list[str]:
    """Basenames of several files that are no contract."""
    counts = Counter(file.stem for file in modules().values())
    return sorted(name for name, count in counts.items() if count > 1 and name not in CONTRACTS)


@cache
def imports() -> dict[str, set[str]]:
    """The modules of ours that each module imports, inside functions and for types too."""
    return {module: set(imported(ast.parse(file.read_text(encoding="utf-8")))) for module, file in modules().items()}


def imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names if name.name in modules())
    elif isinstance(node, ast.ImportFrom) and node.module:
        for name in node.names:
            inner = f"{node.module}.{name.name}"
            yield from (module for module in [inner if inner in modules() else node.module] if module in modules())
    for child in ast.iter_child_nodes(node):
        yield from imported(child)


def circles() -> list[list[str]]:
    """Groups of modules that import each other (strongly connected components of more than one module)."""
    reach: dict[str, set[str]] = {}
    for module in modules():
        reach[module], waiting = set(), [module]
        while waiting:
            fresh = imports()[waiting.pop()] - reach[module]
            reach[module] |= fresh
            waiting += fresh
    groups = {frozenset({other for other in reach[module] if module in reach[other]}) for module in modules()}
    return sorted(sorted(group) for group in groups if group)


def floors() -> dict[str, int]:
    """The floor of each layer of `[tool.importlinter]`, the lowest first."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in config["contracts"] if contract["type"] == "layers")
    return {name: floor for floor, names in enumerate(reversed(layers)) for name in re.split(r" [|:] ", names)}


def arrows_up() -> list[str]:
    """Imports of a module on a higher floor."""
    heights = floors()

    def floor(module: str) -> int:
        parts = module.split(".")
        known = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((heights[name] for name in known if name in heights), 0)  # `synthdiv` itself has a version, no more

    return sorted(
        f"{module} -> {other}"
        for module, others in imports().items()
        for other in others
        if floor(other) > floor(module)
    )


def page() -> str:
    """The figures as Markdown."""
    sizes = rooms()
    every = [count for counts in sizes.values() for count in counts]
    fan: defaultdict[str, set[str]] = defaultdict(set)
    for module, others in imports().items():  # the package itself is imported for its version
        fan[room(module)] |= {room(other) for other in others - {"synthdiv"}} - {room(module)}
    rows = [
        f"| `{name}` | {len(counts)} | {sum(counts):,} | {BUDGETS[name]:,} | "
        f"{format(GOALS[name], ',') if name in GOALS else ''} | "
        f"{', '.join(sorted(fan[name])) or '–'} |"
        for name, counts in sizes.items()
    ]
    tests = sum(lines(file) for file in (ROOT / "tests").rglob("*.py"))
    facts = [
        f"- {len(every)} files with code, {sum(every):,} lines (limit {TOTAL:,}, first goal {TOTAL_GOAL:,}); "
        f"tests: {tests:,} lines.",
        f"- Median file: {round(statistics.median(every))} lines (goal {MEDIAN_GOAL}); longest: {max(every)}; "
        f"files over {LONGEST} lines: {', '.join(over_long()) or 'none'}.",
        f"- File names used twice: {', '.join(repeated_names()) or 'none'}, except "
        f"{' and '.join(f'`{name}`' for name in sorted(CONTRACTS))}.",
        f"- {len(sizes)} rooms on {1 + max(floors().values())} floors. Import circles: {len(circles())}. Imports "
        f"of a higher floor: {len(arrows_up())}.",
    ]
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for module, file in modules().items():
        kinds[room(module)] += causes(file)
    kinds["all"] = sum(kinds.values(), Counter[str]())
    shares = [f"| `{name}` | {' | '.join(f'{kinds[name][cause]:,}' for cause in CAUSES)} |" for name in [*sizes, "all"]]
    heads = [f"| room | {' | '.join(CAUSES)} |", "|---" * (len(CAUSES) + 1) + "|"]
    header = ["| room | files | lines | limit | first goal | imports |", "|---|---|---|---|---|---|"]
    return "\n".join([*header, *rows, "", *facts, "", *heads, *shares])


def with_part(file: Path, part: str) -> str:
    """The text of a page with another part that is made."""
    before, rest = file.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n\n{part}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_part(PAGE, page()), encoding="utf-8")
    print(page())
