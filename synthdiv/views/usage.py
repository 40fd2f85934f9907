"""The text of `--help`. Hydra's own help repeats the whole schema for every group of `conf/`."""

from __future__ import annotations

from pathlib import Path

VERBS = ("plan", "status", "report", "publish", "dashboard", "doctor", "trace", "export", "measure", "judge")
TEXT = """\
synthdiv: what the diversity of synthetic data does to a language model that is fine-tuned on it

  synthdiv plan [--json] -m experiment=demo   show what would run and what it would cost; writes nothing
  synthdiv -m experiment=demo                 run a sweep, here a complete small study; any field is an axis
  synthdiv mix=multi train.lr=1e-4            run one cell, with any field overridden
  synthdiv status [NAME] [--json] [--watch]   show what is done, running and failed, and why
  synthdiv report NAME                        write the tables and figures of a sweep
  synthdiv publish NAME                       write every cell of a sweep to W&B or trackio, offline without a key
  synthdiv dashboard NAME                     make a workspace and a report of W&B for these runs
  synthdiv measure FILE                       compute the diversity measures of any file of texts
  synthdiv judge FILE                         compare the verdicts of a judge with labels, before it is trusted
  synthdiv trace ID [--json]                  show the source and request of every answer to a prompt
  synthdiv export NODE FOLDER [--adapter]     write a trained model, such as train/4f1c, for other libraries
  synthdiv doctor                             verify every artifact and list unfinished work
  synthdiv --version                          show the version

Groups (select a preset with GROUP=NAME; add your own presets with --config-dir FOLDER):

{groups}

Override any field with FIELD=VALUE. `synthdiv --cfg job` shows their values, docs/fields.md what each means."""


def usage(folders: list[Path], verb: str = "plan") -> str:
    """The help text, with the groups and presets of the configuration folders; of a verb that takes no fields, its
    line."""
    if verb != "plan":
        (line,) = [line.strip() for line in TEXT.splitlines() if line.startswith(f"  synthdiv {verb} ")]
        return f"{line}\n\nruntime.outputs=FOLDER reads another folder than `outputs`."
    presets: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/*.yaml"):
            presets.setdefault(file.parent.name, set()).add(file.stem)
    return TEXT.format(groups="\n".join(f"  {group}: {', '.join(sorted(presets[group]))}" for group in sorted(presets)))
