"""How alike the students of a population answer the same test prompts: whether they become one voice."""

from __future__ import annotations

from dataclasses import dataclass

from synthdiv.core.fields import setting
from synthdiv.core.stage import Node
from synthdiv.evaluate.alikeness import SourcesAlike
from synthdiv.evaluate.suite import EvaluatedStudent, Suite


@dataclass
class StudentsAlikeSuite(Suite):
    """Between-student similarity of a population, the same for each of its members."""

    headlines = ("students/ngrams/alike", "students/ngrams/voices")
    reading = (
        "`students/…/alike` is how alike members of a population answer the same test prompt: 0 (no more than other "
        "prompts) to 1 (the same text); `…/voices` is for how many wholly different students they count."
    )

    decoding: str = ""
    """The decoding whose first answers are compared; empty: the first."""
    length: int = setting(100, least=1)
    """Words to which answers are cut."""

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        answers = arm.members.get(self.decoding or next(iter(arm.responses)), [])
        names = [f"student-{number}" for number in range(len(answers))]
        stage = SourcesAlike(names, length=self.length, prefix="students/")
        return Node(stage, dict(zip(names, answers, strict=True))) if answers else None
