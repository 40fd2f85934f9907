"""numpy, and what scipy computes of distributions, as modules that load when they are first used: `--help` and `status`
start without them, and functions need no imports of their own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["np", "special"]

if TYPE_CHECKING:
    import numpy as np
    from scipy import special
else:

    class Lazy:
        """A module by its name."""

        def __init__(self, name: str):
            self.__name__ = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(importlib.import_module(self.__name__), attribute)
            setattr(self, attribute, value)  # the next time it is an attribute like any other
            return value

    np, special = Lazy("numpy"), Lazy("scipy.special")
