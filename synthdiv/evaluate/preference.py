"""The preference suite: does a student prefer its own texts? It judges pairs of authors, compared with a panel of other
judges at equal quality and length, and with the vanilla student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthdiv.core.fields import listed_twice, setting
from synthdiv.core.resolver import Resolver
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import Artifact, Run, Score
from synthdiv.evaluate.author_pairs import (
    CONSISTENCY,
    Estimates,
    Gains,
    Votes,
    author_ratings,
    blocked,
    gains_by_author,
    likelihood_estimates,
    pair_estimates,
    wins_by,
    without_panel,
)
from synthdiv.evaluate.judged import panel_of
from synthdiv.evaluate.likelihood import Likelihood, Target, read_likelihood
from synthdiv.evaluate.suite import EvaluatedStudent, Resolvable, Suite, item, write_suite
from synthdiv.evaluate.verdicts import JudgeModel
from synthdiv.generate.generate import Split
from synthdiv.generate.law import mistaken
from synthdiv.generate.source import Source
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.measures.estimates import VANILLA, Estimate
from synthdiv.prompts.prompt_set import ToyPrompts
from synthdiv.prompts.requests import Requests
from synthdiv.prompts.table import Table
from synthdiv.prompts.toy_world import POOLS, Pool

HUMAN, SOURCE, STUDENT, WRONG = "human", "source", "student", "wrong"  # authors
VANILLA_AUTHOR = "vanilla"  # the author that the student was before fine-tuning
RESERVED = (STUDENT, VANILLA_AUTHOR, SOURCE, WRONG)  # names that no author of a file may have
FIXED = "fixed"  # the authors that every arm of a student has
RATING, PAIRWISE, SOURCED = "quality", "preference", "preference_with_source"


@dataclass
class Author:
    """An author whose texts are in a file."""

    name: str = ""
    """The name, which is part of the names of scores. A source of the mix with this name is this author."""
    recorded: Recorded = field(default_factory=Recorded)
    """Where the texts are. A prompt without one leaves its pairs incomplete."""

    def check(self, name: str) -> list[str]:
        if self.name not in ("", *RESERVED) and not {*"/>"} & {*self.name}:
            return []
        return [f"{name}.name={self.name!r}: needs a name without '/' and '>', none of {', '.join(RESERVED)}"]

    def resolve(self, resolver: Resolver) -> None:
        self.recorded.resolve(resolver, "recorded")


@dataclass
class PreferenceSuite(Suite):
    """Does the student prefer its own texts to those of its vanilla self, sources, the human and further authors?"""

    rubrics = (RATING, PAIRWISE)
    headlines = (
        "preference/bias_per_quality/vanilla",
        "preference/bias_per_quality/vanilla-vanilla",
        "preference/bias_per_quality/student",
        "preference/over_baseline/student",
        "preference/likelihood_own-vanilla",
    )
    caveats = tuple(f"preference/{name}" for name in (*CONSISTENCY, f"unjudged/{PAIRWISE}/{STUDENT}"))
    reading = (
        "The student judges pairs of texts. `preference/…/AUTHOR` is about the texts of an author: `student` is the "
        "student itself, `vanilla` the same model before fine-tuning. A bias is a preference beyond that of a panel of "
        "unrelated judges, with length and quality held fixed. A student near 0.5 for every author may be unable to "
        "judge rather than fair: read `preference/discrimination` first. Likelihood preference needs no judging."
    )
    student_judge = "what the preference suite tests: see its discrimination"

    authors: list[Author] = field(default_factory=list)
    """Further authors, the same for every arm."""
    table: Table | None = None
    """A file of requests, with a context that is the source text; null: the test prompts of the study, with their human
    answers."""
    toy: Pool | None = None
    """Prompts of the study's toy world in place of its test prompts: `pretrained` ask for facts that the vanilla
    student knows, `judged` for those that `student=toy_judge` can judge. Where nobody refuses, the author `wrong`
    answers too, as humans do but for the values, so that the pairs show what a judge discriminates."""
    with_source: bool = False
    """Also ask with the source text in view (rubric preference_with_source)."""
    decoding: str = ""
    """The decoding whose answers are compared; empty: the first."""
    prompts: int = setting(100, least=0)
    """How many prompts, the first in their order; 0: all."""
    seed: int = setting(0, least=0)
    """Seed of the intervals."""

    def check(self, name: str) -> list[str]:
        names = [author.name for author in self.authors]
        human = f"{name}.authors: {HUMAN!r} is the author of the study's human answers; name it otherwise"
        return listed_twice(f"{name}.authors", names, "authors") + [human] * (HUMAN in names and not self.table)

    def prompt_sets(self) -> dict[str, Resolvable]:
        sets: dict[str, Resolvable] = {f"authors.{index}": author for index, author in enumerate(self.authors)}
        return sets | ({"table": Requests(table=self.table)} if self.table else {})

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        prompts = self.prompt_set(arm)
        fixed = self.fixed(vanilla or arm, prompts)
        if len(fixed) < 2:
            return None
        extra = self.extra(arm, prompts) if vanilla else {}
        toy = bool(getattr(prompts.stage, "toy", None))
        protocols = [PAIRWISE, *([SOURCED] if self.with_source else [])]
        raters = [judge for judge in arm.judges if judge.judges(arm.rubrics.quality, toy)]
        able = [[judge for judge in raters if judge.judges(getattr(arm.rubrics, name), toy)] for name in protocols]
        panel, *sourced = map(panel_of, able)
        stage = Preference([*fixed], [*extra], panel, protocols, vanilla is None, self.seed)
        stage.sourced = sourced[0] if sourced and sourced[0] != panel else None
        stage.others = [judge.name for judge in able[0] if not judge.headline]
        pool = {judge.name: judge for judge in (*arm.judges, judge_of(arm))}
        inputs = dict[str, Node]()
        for name, authors in {FIXED: fixed, **{name: fixed | {name: node} for name, node in extra.items()}}.items():
            for rubric in (*protocols, RATING):
                for judge in stage.judges_of(rubric):
                    inputs[f"{name}/{rubric}/{judge}"] = self.verdicts(arm, pool[judge], rubric, prompts, authors, name)
            for model, prefix in ((arm.model, ""), (arm.vanilla_model, "vanilla/")) if vanilla else ():
                texts = fixed if name == FIXED else {name: extra[name]}
                how = (arm.settings.precision, arm.settings.batch_tokens, len(texts))
                likelihood = Likelihood(Target.authors, self.prompts, *how)
                numbered = {str(at): node for at, node in enumerate(texts.values())}
                inputs[f"{prefix}{name}/likelihood"] = Node(likelihood, {"prompts": prompts, "model": model} | numbered)
        for rubric in (*protocols, RATING) if vanilla else ():
            before = self.verdicts(arm, judge_of(vanilla or arm), rubric, prompts, fixed, FIXED)
            inputs[f"vanilla/{FIXED}/{rubric}/{STUDENT}"] = before
        return Node(stage, inputs)

    def prompt_set(self, arm: EvaluatedStudent) -> Node:
        """The prompts to which authors wrote, rendered as those of the study."""
        study: Any = arm.prompts.stage
        if self.toy and getattr(study, "toy", None):
            rows = 4 * (self.prompts or study.test)  # more than are asked, so that the split has whole groups
            toy = ToyPrompts(rows, study.toy.world, self.toy)
            return Node(replace(study, toy=toy, test=self.prompts or study.test, target=0))
        return Node(Requests(*arm.rendering, self.table)) if self.table else arm.prompts

    def answers(self, arm: EvaluatedStudent, prompts: Node) -> Node:
        """The answers of a student to them."""
        decoding = self.decoding or next(iter(arm.responses))
        if prompts.key == arm.prompts.key:
            return arm.responses[decoding]
        how = next(each.sampling for each in arm.settings.respond.decodings if each.name == decoding)
        return arm.source(how).answers(prompts, **self.which(prompts))

    def which(self, prompts: Node) -> dict[str, Any]:
        count: int = prompts.stage.test  # type: ignore[attr-defined]
        return {"split": Split.test, "rows": min(self.prompts or count, count)}

    def fixed(self, vanilla: EvaluatedStudent, prompts: Node) -> dict[str, Node]:
        """The answers of the authors that do not depend on an arm."""
        authors = {VANILLA_AUTHOR: self.answers(vanilla, prompts)}
        if getattr(prompts.stage, "human", False):
            authors[HUMAN] = prompts
        sources = [Source(author.name, Backend.recorded, recorded=author.recorded) for author in self.authors]
        if self.toy and (toy := getattr(prompts.stage, "toy", None)) and not POOLS[self.toy.value][1]:
            sources.append(Source(WRONG, Backend.law, Node(mistaken(toy.world)), sampling=Sampling(1.0, 1.0)))
        return authors | {source.name: source.answers(prompts, **self.which(prompts)) for source in sources}

    def extra(self, arm: EvaluatedStudent, prompts: Node) -> dict[str, Node]:
        """The answers of the tuned student and of its sources, unless they are recorded or listed as authors."""
        authors, listed = {STUDENT: self.answers(arm, prompts)}, {author.name for author in self.authors}
        for source in arm.sources:
            if source.backend is not Backend.recorded and source.name not in listed:
                authors[f"{SOURCE}/{source.name}"] = source.answers(prompts, **self.which(prompts))
        return authors

    def verdicts(
        self, arm: EvaluatedStudent, judge: JudgeModel, rubric: str, prompts: Node, authors: dict[str, Node], name: str
    ) -> Node:
        """The verdicts of a judge on all authors, or on pairs with the one of this name and on its texts."""
        compared, texts = 0 if name == FIXED else len(authors) - 1, [*authors.values()]
        texts, more = (texts[compared:], {}) if rubric == RATING else (texts, {"compared": compared})
        return judge.verdicts(getattr(arm.rubrics, rubric), prompts, *texts, limit=self.prompts, **more)


def judge_of(arm: EvaluatedStudent) -> JudgeModel:
    """The student as a judge, by raw logits."""
    return JudgeModel(arm.source(Sampling(), Backend.logits), headline=False)


@dataclass
class Preference(Stage):
    """Inputs: by set of authors S (`fixed`, and each of `extra` with the fixed ones), rubric R and judge J (`student`,
    the panel and `others`) `S/R/J`, its verdicts. Unless the student is the vanilla one `S/likelihood` and
    `vanilla/S/likelihood`, of the texts under the student and the vanilla student, and `vanilla/fixed/R/student`.

    Output: `scores.json` and `items.parquet`.
    """

    name, version = "preference", 2

    authors: list[str] = field(default_factory=list)
    """The authors that every arm of a student has."""
    extra: list[str] = field(default_factory=list)
    """The authors of this arm: the student and its sources. Each is compared with the fixed ones."""
    panel: list[str] = field(default_factory=list)
    """The judges whose mean is the reference."""
    protocols: list[str] = field(default_factory=lambda: [PAIRWISE])
    """The rubrics by which pairs are judged."""
    vanilla: bool = False
    """This is the vanilla student itself."""
    seed: int = 0
    """Seed of the intervals."""
    sourced: list[str] | None = setting(None, before=None)  # noqa: RUF009
    """The panel of the protocol with the source text, which fewer judges may know; null: the same."""
    others: list[str] = setting(make=list, before=[])  # noqa: RUF009
    """The judges that are in no panel: which author wins by each of them is shown apart."""

    def panel_of(self, protocol: str) -> list[str]:
        return self.panel if protocol != SOURCED or self.sourced is None else self.sourced

    def judges_of(self, rubric: str) -> list[str]:
        """The judges that are asked a rubric."""
        panel = [*self.panel, *(self.sourced or [])] if rubric == RATING else self.panel_of(rubric)
        return [*dict.fromkeys((STUDENT, *panel, *(self.others if rubric == PAIRWISE else ())))]

    def input_names(self) -> Iterator[str]:
        for name in (FIXED, *self.extra):
            for rubric in (*self.protocols, RATING):
                yield from (f"{name}/{rubric}/{judge}" for judge in self.judges_of(rubric))
            if not self.vanilla:
                yield from (f"{name}/likelihood", f"vanilla/{name}/likelihood")
        if not self.vanilla:
            yield from (f"vanilla/{FIXED}/{rubric}/{STUDENT}" for rubric in (*self.protocols, RATING))

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        estimates, items, incomplete = dict[str, Estimate](), list[dict[str, Any]](), list[str]()
        for protocol in self.protocols:
            prefix = "with_source/" * (protocol == SOURCED)
            members = self.panel_of(protocol)
            judge, *panel = votes = [self.votes(inputs, protocol, name) for name in (STUDENT, *members)]
            before = None if self.vanilla else self.votes(inputs, protocol, STUDENT, before=True)
            actual, reason, missing = pair_estimates(judge, before, panel, self.authors, self.extra, self.seed)
            if not prefix:
                actual |= author_ratings(judge, before, panel, RATING, self.authors, self.extra)
            if not panel:
                actual = {name: without_panel(name, each) for name, each in actual.items()}
            estimates |= {f"{prefix}{name}": blocked(name, each, reason) for name, each in actual.items()}
            incomplete += [f"{prefix}{prompt}: {one}, {other}" for prompt, one, other in missing]
            for name, one in zip((STUDENT, *members), votes, strict=True):
                items += one.items(f"preference/{prefix}{name}", not prefix)
                estimates |= one.problems(name) | (one.by_order(prefix, name, self.authors) if name in members else {})
        for name in self.others:
            other = self.votes(inputs, PAIRWISE, name)
            estimates |= wins_by(name, other, self.authors, self.extra) | other.problems(name)
            items += other.items(f"preference/{name}")
        if not self.vanilla:
            more, rows = self.likelihoods(inputs)
            estimates, items = estimates | more, items + rows
        scores = [named(f"preference/{name}", each) for name, each in estimates.items()]
        write_suite(out, scores, items, PreferenceSuite)
        undefined = sum(score.value != score.value for score in scores)
        return {"scores": len(scores), "undefined": undefined, "incomplete": len(incomplete), "such": incomplete[:20]}

    def votes(self, inputs: Mapping[str, Artifact], protocol: str, judge: str, before: bool = False) -> Votes:
        """The verdicts of a judge; those of the student `before` fine-tuning are on the fixed authors."""
        votes = Votes()
        for name in (FIXED,) if before else (FIXED, *self.extra):
            prefix, authors = "vanilla/" * before, self.authors + [name] * (name != FIXED)
            votes.add(inputs[f"{prefix}{name}/{protocol}/{judge}"], authors)
            if judge not in self.others:
                votes.add(inputs[f"{prefix}{name}/{RATING}/{judge}"], authors if name == FIXED else [name])
        return votes

    def likelihoods(self, inputs: Mapping[str, Artifact]) -> tuple[Estimates, list[dict[str, Any]]]:
        """By how much fine-tuning raised the log-likelihood of each author's texts, and of those of the vanilla student
        more than of the other fixed authors'; and the items."""
        values: dict[str, Gains] = {}
        for name in (FIXED, *self.extra):
            after, before = (read_likelihood(inputs[f"{prefix}{name}/likelihood"]) for prefix in ("", "vanilla/"))
            values |= gains_by_author(after, before, self.authors if name == FIXED else [name])
        items = [
            item(key, f"preference/likelihood/{author}", gain, bytes=size)
            for author, texts in values.items()
            for key, (gain, size) in texts.items()
        ]
        return likelihood_estimates(values, [name for name in self.authors if name != WRONG], VANILLA_AUTHOR), items


def named(name: str, estimate: Estimate) -> Score:
    measure = estimate.measure._replace(name=name.removesuffix(VANILLA))
    return replace(estimate, measure=measure).score()
