"""What the tests of generators share."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def folder(root, prompts, tmp_path):
    """Where one test builds: its module's prompts are there."""
    shutil.copytree(root / "artifacts", tmp_path / "artifacts")
    return tmp_path
