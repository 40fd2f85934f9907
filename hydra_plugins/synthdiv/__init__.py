"""Hydra finds plugins below the namespace package `hydra_plugins`; it has no `__init__.py` of its own on purpose."""
