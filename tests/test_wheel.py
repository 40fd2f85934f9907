"""A built wheel works in any directory, with its `conf/` inside."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def test_no_release_that_runs_code_of_a_model_or_an_experiment_may_be_installed_and_every_pin_has_its_hash():
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"hydra-core>=1.3.8,' in lines, "1.3.4 runs a shell command of an experiment file"
    assert '"sentence-transformers>=6"' in lines, "5.2 runs the module that modules.json names"
    pins, hashed = (
        [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        for name in ("constraints.txt", "hashes.txt")
    )
    assert [line.split(" --hash=sha256:")[0] for line in hashed] == pins
    assert all(len(line.split(" --hash=sha256:")[1]) == 64 for line in hashed)


def test_the_pins_are_what_is_installed_and_satisfy_every_installed_requirement_of_them():
    """A pin that another package refuses stops every new installation, and none that exists already."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    by_name = {canonicalize_name(name): pin for name, pin in pins.items()}
    assert {name: metadata.version(name).split("+")[0] for name in pins} == pins
    for package in metadata.distributions():
        extras = ["test", "deepspeed", "harness", "qlora", "smollm2", "trackio"] if package.name == "synthdiv" else [""]
        for requirement in map(Requirement, package.requires or []):
            if all(not requirement.marker or not requirement.marker.evaluate({"extra": e}) for e in extras):
                continue
            pin = by_name.get(canonicalize_name(requirement.name))
            assert pin is None or pin in requirement.specifier, f"{package.name} requires {requirement}"


def test_a_wheel_brings_the_command_its_plugins_and_its_presets(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    presets = {str(path.relative_to(ROOT / "conf")) for path in (ROOT / "conf").rglob("*.yaml")}
    assert {
        str(path.relative_to(site / "synthdiv/conf")) for path in (site / "synthdiv/conf").rglob("*.yaml")
    } == presets
    assets = {path.name for path in (site / "synthdiv/views/report/assets").iterdir()}
    page = {"page.html", "page.css", "page.js", "plotly-cartesian-4.1.1.min.js", "plotly-LICENSE"}
    assert assets == page, "the page of a report, and plotly.js with its notice"
    assert not (site / "hydra_plugins" / "__init__.py").exists(), "it must stay a namespace package"

    def run(*words: str) -> str:
        code = f"import sys; sys.path.insert(0, {str(site)!r}); import synthdiv.__main__ as command; command.main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=elsewhere, env=os.environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "experiment: demo" in run("--help")
    assert "demo: 18 cells, 16 unique" in run("plan", "-m", "experiment=demo")
    assert not list(Path(elsewhere).iterdir()), "a plan writes nothing"
