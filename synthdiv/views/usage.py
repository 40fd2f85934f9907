"""What `--help` prints. Not Hydra's own help: that copies the whole schema once for every group of `conf/`."""

from __future__ import annotations

from pathlib import Path

VERBS = ("plan", "status", "report", "doctor", "trace", "measure")
TEXT = """\
synthdiv: what the diversity of synthetic data does to a language model that is tuned on it

  synthdiv -m experiment=demo                 a whole small study, offline
  synthdiv mix=multi train.lr=1e-4            one cell, any field overridden
  synthdiv plan [--json] -m experiment=demo   what would run and what it costs; builds nothing
  synthdiv status [NAME] [--json] [--watch]   what is done, running, failed and why
  synthdiv report NAME                        tables and figures of a sweep
  synthdiv doctor                             verify every artifact; list unfinished work
  synthdiv trace ID [--json]                  where the answers to a prompt came from, request by request
  synthdiv measure FILE                       the diversity measures alone, of any file of texts

Groups (choose with GROUP=NAME; a folder of your own beside these: --config-dir FOLDER):

{groups}

`synthdiv --cfg job` shows every field; override any of them as FIELD=VALUE."""


def usage(folders: list[Path]) -> str:
    """The help text, with the groups and presets of the configuration folders."""
    presets: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/*.yaml"):
            presets.setdefault(file.parent.name, set()).add(file.stem)
    return TEXT.format(groups="\n".join(f"  {group}: {', '.join(sorted(presets[group]))}" for group in sorted(presets)))
