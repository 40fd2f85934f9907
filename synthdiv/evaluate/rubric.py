"""What a judge is asked about an answer, or about a pair of answers, and how its options become numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields

from synthdiv.core.fields import setting

SLOT = re.compile(r"\{(\w+)\}")
TAG = re.compile(r"</?(\w+)>")
RATING, PAIR = {"prompt", "response"}, {"prompt", "a", "b"}
STATED = r"(?i:answer|verdict|rating|score|choice){link}({options})(?![.,-]?\w)(?! (?i:or) )"
LINKED = r"\W{0,3}(?:\b(?i:is)\b|[:=-])\W{0,3}"  # "my answer is B"; without it, "answer B" may only name a text
LIST = re.compile(r"\W{0,3}1[.):]\s.*?\s\W{0,3}2[.):]\s", re.DOTALL)  # its numbers are no ratings
# "A clear answer", "No problems": words of a sentence
BEGINS = re.compile(r"(?:^|(?<=[.!?:;]\s)|(?<=\n))(A|No) (?!(?:is|was|has|does|wins|it|the|this)\b)(?=[a-z])")
DENIED = re.compile(r"\b(?:not|neither|nor|worse|wrong)\b|n['’]t\b", re.IGNORECASE)


@dataclass
class Rubric:
    """A question with a closed list of answers. Texts stand in tags, so that a judge sees where each ends; tags within
    a text lose their brackets."""

    name: str = ""
    """The name, which begins the names of scores."""
    version: int = setting(1, least=1)
    """Rises with every change of the wording."""
    system: str | None = None
    """The system prompt; null: none."""
    instruction: str = ""
    """The question, with the slots {prompt} and {response}, or {prompt}, {a} and {b} for a pair; a pair may have
    {source}, the text that both answers are about."""
    options: list[str] = field(default_factory=list)
    """The answers that a judge may give. Those of a pair are the names of the first and of the second text."""
    values: list[float] = field(default_factory=list)
    """The number of each option; of a pair 1 and 0."""
    higher_is_better: bool | None = None
    """Whether a higher number is better; null: neither direction is."""

    @property
    def pair(self) -> bool:
        """Whether it compares two answers."""
        return "{a}" in self.instruction

    @property
    def sourced(self) -> bool:
        """Whether it shows the text that the answers are about."""
        return "{source}" in self.instruction

    def check(self, name: str) -> list[str]:
        if not self.instruction:
            return []  # a rubric that no suite asks
        slots, wrong = set(SLOT.findall(self.instruction)), []
        needs = (PAIR | ({"source"} & slots)) if self.pair else RATING
        if slots != needs:
            slot_names = ", ".join(f"{{{slot}}}" for slot in sorted(slots)) or "none"
            wrong.append(
                f"{name}.instruction: needs the slots {{prompt}} and {{response}}, or {{prompt}}, {{a}} and {{b}} for "
                f"pairs; has {slot_names}"
            )
        if len(self.options) < 2 or len({*self.options}) < len(self.options) or not all(self.options):
            wrong.append(f"{name}.options={self.options}: needs two or more different answers")
        if len(self.values) != len(self.options):
            wrong.append(f"{name}.values={self.values}: needs one number for each of {', '.join(self.options)}")
        if self.pair and self.values != [1.0, 0.0]:
            wrong.append(f"{name}.values={self.values}: a pair has 1 for its first text and 0 for its second")
        return wrong

    def render(self, texts: dict[str, str]) -> str:
        """The judge prompt about these texts, by slot. Braces and tags in a text are text."""
        names = "|".join({*TAG.findall(self.instruction)})
        # a model reads a tag in any spelling
        tags = re.compile(rf"<(\s*(?:/\s*)?(?:{names})\b[^<>]*)(>?)", re.IGNORECASE)

        def text_of(match: re.Match[str]) -> str:
            text = texts[match[1]]
            return tags.sub(lambda tag: f"({tag[1]}{')' * len(tag[2])}", text) if names else text

        return SLOT.sub(text_of, self.instruction)

    def parse(self, text: str) -> str:
        """The option that a judge's text states, or "" where it states none or more than one. An option at the start
        counts, else the last one of "rating: …" or "answer is …", else the only one of "rating …", else the only one in
        the text; the latter two not where the text denies something, because "answer A is worse" states B. Options of
        one letter count as they are written, because "its answer is a good one" states nothing."""
        scale, most = r"\s*(?:/|out of)\s*", re.escape(self.options[-1])
        numbers = rf"(?!{scale}(?!{most}\b)\d)"  # 4 of another scale, as in 4/10, is no option
        longest_first = sorted(self.options, key=len, reverse=True)
        exact = {each: re.escape(each) + numbers * each.isdecimal() for each in longest_first}
        options = "|".join(f"(?i:{form})" if len(each) > 1 else form for each, form in exact.items())
        bare = re.sub(r"[*_`\"'“”]", "", text).strip()
        start = re.match(rf"[\[(]?({options})(?:{scale}{most})?(?=$|[\])]?(?:[.:,;\])](?!\d)|\s*$|\s*\n))", bare)
        start = None if LIST.match(bare) else start
        linked = re.findall(STATED.format(link=LINKED, options=options), bare)[-1:]
        named = [] if self.pair else re.findall(STATED.format(link=r"\s", options=options), bare)
        standing = re.findall(rf"(?<![\w.,])({'|'.join(exact.values())})(?![.,]?\w)", bare)
        unclear = DENIED.search(text) or {*BEGINS.findall(bare)} & {*self.options}
        for stated in ([start[1]] if start else [], linked, *(() if unclear else (named, standing))):
            if stated:
                same = {option for option in self.options for text in stated if option.lower() == text.lower()}
                return same.pop() if len(same) == 1 else ""
        return ""

    def value(self, p: list[float]) -> float:
        """The expected number under probabilities of the options; NaN where they are all 0."""
        total = sum(p)
        return sum(a * b for a, b in zip(p, self.values, strict=True)) / total if total > 0 else math.nan


@dataclass
class Rubrics:
    """The rubrics that suites ask judges about. Each is a file of `conf/judge/rubric`."""

    harmfulness: Rubric = field(default_factory=Rubric)
    """How harmful an answer to a harmful request is, 1 to 5."""
    quality: Rubric = field(default_factory=Rubric)
    """How good an answer is, 1 to 5."""
    coherence: Rubric = field(default_factory=Rubric)
    """Whether an answer is a coherent text that fits its request, right or wrong, harmful or not."""
    convincing: Rubric = field(default_factory=Rubric)
    """How convincing an answer is, 1 to 5."""
    specific: Rubric = field(default_factory=Rubric)
    """How specific an answer is, 1 to 5."""
    refusal: Rubric = field(default_factory=Rubric)
    """Whether an answer refuses."""
    preference: Rubric = field(default_factory=Rubric)
    """Which of two answers is better."""
    preference_with_source: Rubric = field(default_factory=Rubric)
    """Which of two answers is better, with the text that they are about."""

    def check(self, name: str) -> list[str]:
        """Suites and scores know a rubric by what it is asked for."""
        return [
            f"{name}.{each.name}.name={rubric.name!r}: needs to be {each.name}; version and wording tell it from others"
            for each in fields(self)
            if (rubric := getattr(self, each.name)).instruction and rubric.name != each.name
        ]
