"""Libraries that load when they are first used."""

from __future__ import annotations

import subprocess
import sys


def test_numpy_and_scipy_load_at_their_first_use():
    code = (
        "import sys; from synthdiv.core.lazy import np, special; assert not {'numpy', 'scipy'} & {*sys.modules}\n"
        "assert np.arange(3).sum() == 3 and special.ndtr(0.0) == 0.5\n"
        "import numpy, scipy.special; assert np.arange is numpy.arange and special.ndtr is scipy.special.ndtr"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
