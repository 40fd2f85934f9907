"""How many voices a mix has: how alike its sources answer the same test prompts. No student has a part in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError
from synthdiv.evaluate.alikeness import SourcesAlike, members
from synthdiv.evaluate.suite import EvaluatedStudent, Suite
from synthdiv.generate.generate import Split
from synthdiv.models.checkpoint import Checkpoint


@dataclass
class SourcesAlikeSuite(Suite):
    """Between-source similarity per prompt, and the effective number of sources, of a mix of several."""

    headlines = ("ngrams/voices", "ngrams/alike", "vectors/voices", "vectors/alike")
    diversity = ("ngrams/alike", "vectors/alike")

    sets: list[str] = field(default_factory=list)
    """Sets of sources that are also measured alone, each `NAME=SOURCE,SOURCE,…`: a family, a size."""
    length: int = setting(100, least=1)
    """Words to which answers are cut, so that length has no part in it."""
    encoder: Checkpoint | None = None
    """A model of sentence-transformers; null: word bigrams only."""

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        names = [source.name for source in arm.sources]
        if len(names) < 2:
            return None
        wrong = [text for text in self.sets if len(members(text)) < 2 or not {*members(text)} <= {*names}]
        if wrong:
            needs = f"needs NAME=SOURCE,SOURCE,… with two or more of {', '.join(names)}"
            raise ConfigError(f"evaluate.suites: sets of sources_alike: {wrong[0]!r} {needs}")
        which: dict[str, Any] = {"split": Split.test, "rows": getattr(arm.prompts.stage, "test", 0)}
        inputs = {source.name: source.answers(arm.prompts, **which) for source in arm.sources}
        stage = SourcesAlike(names, self.sets, self.length, self.encoder is not None)
        return Node(stage, inputs | ({"encoder": Node(self.encoder)} if self.encoder else {}))
