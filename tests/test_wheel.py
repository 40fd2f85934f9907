"""A built wheel works in any directory, with its `conf/` inside."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from conftest import ROOT


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
    assert not (site / "hydra_plugins" / "__init__.py").exists(), "it must stay a namespace package"

    def run(*words: str) -> str:
        code = f"import sys; sys.path.insert(0, {str(site)!r}); import synthdiv.__main__ as command; command.main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=elsewhere, env=os.environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "experiment: demo" in run("--help")
    assert "demo: 40 cells, 32 unique" in run("plan", "-m", "experiment=demo")
    assert not list(Path(elsewhere).iterdir()), "a plan writes nothing"
