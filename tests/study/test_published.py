"""`experiment=eggs_8b` and `eggs_70b` are the published study (S1, arXiv 2511.01490), its settings in the table below;
their twins run the same graph with toy models. And S1's mistakes: each has a test that fails if it is made again."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from synthdiv.__main__ import conf_dir
from synthdiv.core.ledger import Ledger
from synthdiv.core.resolver import Resolver
from synthdiv.engine.profile import Profile
from synthdiv.generate.spec import Backend
from synthdiv.measures.vectors import mean_cosine_distance
from synthdiv.study.config import Cell
from synthdiv.study.expand import Expander
from synthdiv.study.freeze import freeze
from synthdiv.study.grid import GridSpec
from synthdiv.views.report.arms import arms_of
from synthdiv.views.report.collect import collect
from synthdiv.views.report.judges import judge_rows
from synthdiv.views.report.labels import Labels
from tests.conftest import ROOT, synthdiv, write_rows
from tests.outputs_page import undocumented

# Read in the executed notebooks, tables and logs of the public code of S1.
SETTINGS = {
    "prompts.table.hub": "databricks/databricks-dolly-15k",
    "prompts.rows": 15011,
    "prompts.train_rows": 13509,
    "prompts.test": 1502,
    "prompts.system": "You are a helpful assistant.",
    "prompts.table.columns.context": "context",
    "prompts.table.columns.category": "category",
    "train.method": "lora",
    "train.lora.r": 16,
    "train.lora.alpha": 32,
    "train.lora.dropout": 0.1,
    "train.loss_on": "all",
    "train.lr": 5e-5,
    "train.schedule": "cosine",
    "train.warmup": 0.03,
    "train.weight_decay": 0.01,
    "train.precision": "bf16",
    "train.epochs": 3,
    "train.max_tokens": 1024,
    "train.packing": False,
    "train.validation": 0.05,
    "train.stop": "early",
    "train.patience": 5,
    "train.evaluate_every": 20,
    "runtime.gradient_checkpointing": True,
    "mix.rows": None,
    "generators.samples": 1,
}
SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 1024}
STUDENTS = {
    "eggs_8b": ("meta-llama/Llama-3.1-8B-Instruct", 64, {"small": ["human", "single", "multi"]}),
    "eggs_70b": (
        "meta-llama/Llama-3.1-70B-Instruct",
        128,
        {"medium": ["human", "single", "multi"], "small": ["single", "multi"], "large": ["single", "multi"]},
    ),
}
SOURCES = {  # of each size class, in the order of the quarters
    "small": ["Llama-3.1-8B-Instruct", "gemma-2-9b-it", "Qwen2.5-7B-Instruct", "Falcon3-10B-Instruct"],
    "medium": ["Llama-3.1-70B-Instruct", "Mistral-Large", "Qwen2.5-72B-Instruct", "command-r-plus"],
    "large": ["Llama-3.1-405B-Instruct", "gemini-2.0-flash", "gpt-4o", "DeepSeek-V3"],
}
TINY = ["prompts.toy.rows=80", "prompts.test=12", "generators.shard_rows=17", "evaluate.respond.samples=2"]
TINY += ["evaluate.suites.0.words=60", "evaluate.suites.0.texts=6", "evaluate.suites.0.draws=2", "train.seed=0"]
TINY += ["train.epochs=1"]
TINY += ["student.pretrain.tokens=3000", "student.pretrain.toy.rows=200", "evaluate.respond.subset=4"]
TINY += [f"evaluate.suites.1.sets.{index}.limit=4" for index in range(2)] + ["evaluate.suites.2.prompts=4"]
TINY += [f"judge.models.{index}.pretrain.{word}" for index in range(2) for word in ("tokens=3000", "toy.rows=200")]
BRIEF = [f"generators.models.{index}.pretrain.{word}" for index in range(4) for word in ("tokens=3000", "toy.rows=200")]


def points(name, *words):
    """The points of an experiment, with more words of a command line."""
    ConfigStore.instance().store(name="cell", node=Cell, provider="synthdiv")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", [f"experiment={name}"], RunMode.MULTIRUN)
        spec = GridSpec.read(**OmegaConf.to_container(config.hydra.sweeper))
        return Expander(loader, "config", []).points(spec, [f"experiment={name}", *words])


def setting(cell, name):
    for part in name.split("."):
        cell = getattr(cell, part)
    return getattr(cell, "value", cell)


@pytest.mark.parametrize("name", STUDENTS)
def test_an_experiment_has_the_published_settings(name):
    student, batch, arms = STUDENTS[name]
    cells = [point.cell for point in points(name)]
    actual = {key: setting(cells[0], key) for key in SETTINGS}
    assert actual == SETTINGS
    assert all({key: setting(cell, key) for key in SETTINGS} == actual for cell in cells), "the arms differ in the mix"
    assert {(cell.student.checkpoint.hub, cell.train.batch_rows) for cell in cells} == {(student, batch)}
    decodings = {each.name: each.sampling for each in cells[0].evaluate.respond.decodings}
    assert {key: getattr(decodings["published"], key) for key in SAMPLING} == SAMPLING
    assert cells[0].evaluate.suites[0].encoder.hub == "sentence-transformers/all-MiniLM-L6-v2"
    single = points(name, "train.seed=0")
    assert {point.cell.train.seed for point in single} == {0}, "the published study has one model of each arm"
    by_size = {size: [] for size in arms}
    for point in single:
        by_size[point.choices["generators"]].append(point.cell.mix.kind.value)
        for model, source in zip(point.cell.generators.models, SOURCES[point.choices["generators"]], strict=True):
            assert source.lower() in (model.checkpoint.hub if model.checkpoint else model.hosted.id).lower()
            assert {key: getattr(model.sampling, key) for key in SAMPLING} == SAMPLING
    assert by_size == arms
    assert len(cells) == 3 * len(single), "three joint replicates"
    for cell in cells:
        seeds = (cell.generators.seed, cell.mix.rotation, cell.evaluate.respond.seed)
        assert seeds == (cell.train.seed,) * 3, "a replicate changes all seeds together"


def test_all_linear_layers_are_the_published_seven():
    import transformers

    config = transformers.LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    layers = transformers.AutoModelForCausalLM.from_config(config).named_modules()
    names = {name.rpartition(".")[2] for name, layer in layers if type(layer).__name__ == "Linear"}
    assert names - {"lm_head"} == {f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_bill_needs_no_network_and_revisions_stay_open(name, tmp_path, monkeypatch):
    """Every cell has its graph; what only the hub knows is listed, and no commit is invented."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cells = points(name, "train.seed=0")
    frozen = freeze(cells, Resolver(tmp_path))
    assert None not in frozen.graphs
    assert {"databricks/databricks-dolly-15k", STUDENTS[name][0]} < {note.split(":")[0] for note in frozen.unresolved}
    assert all(point.cell.student.checkpoint.revision is None for point in cells)
    mixes = [graph.mix.stage for graph in frozen.graphs]
    quarters = Counter(source for source in mixes[-1].owners())
    assert len(quarters) == 4
    assert max(quarters.values()) - min(quarters.values()) <= 1, "each of four sources answers a quarter"
    assert sum(quarters.values()) == 13509
    assert all({*graph.vanilla} == {*graph.suites} for graph in frozen.graphs), "vanilla stands beside every arm"


@pytest.mark.parametrize("name", STUDENTS)
def test_every_node_that_runs_a_model_has_accelerators_in_the_profile_of_its_experiment(name, tmp_path):
    profile = Profile.of(str(ROOT / f"launchers/slurm/{name}.yaml"), {})
    graphs = freeze(points(name, "train.seed=0"), Resolver(tmp_path)).graphs
    nodes = {node.key: node for graph in graphs for node in graph.nodes().values()}
    models = [node for node in nodes.values() if node.work_model or node.stage.name == "vectors"]
    running = [node for node in models if node.stage.kind != Backend.api.value]
    assert {node.stage.kind for node in running} > {"train", "likelihood", "vectors", "logits"}
    bare = {node.stage.kind for node in running if not dict(profile.shape(node)).get("gpus-per-node")}
    assert not bare, "a model on a node without an accelerator"


def kinds(graph):
    """How often each stage is in a graph, without models, which a twin replaces, the sentence encoder among them; of
    the shards of sources, whose number depends on the rows, only whether there are any."""
    models = ("checkpoint", "pretrain", "family", "hosted", "vectors")
    stages = [node.stage for node in graph.nodes().values() if node.stage.name not in models]
    names = Counter((stage.name, stage.name == "generate" and stage.split.value == "train") for stage in stages)
    names["generate", True] = bool(names["generate", True])
    return names


@pytest.mark.parametrize("name", STUDENTS)
def test_a_twin_is_the_same_study_with_toy_models(name, tmp_path):
    whole, tiny = points(name), points(f"{name}_tiny")
    same = ("mix", "train", "runtime")
    assert [[getattr(point.cell, block) for block in same] for point in tiny] == [
        [getattr(point.cell, block) for block in same] for point in whole
    ]
    assert [len(point.cell.generators.models) for point in tiny] == [
        len(point.cell.generators.models) for point in whole
    ]
    assert [each.name for each in tiny[0].cell.evaluate.respond.decodings] == ["published", "plain"]
    graphs = [freeze(points(each, "train.seed=0"), Resolver(tmp_path)).graphs for each in (name, f"{name}_tiny")]
    assert [kinds(graph) for graph in graphs[0]] == [kinds(graph) for graph in graphs[1]]
    assert [{*graph.suites} for graph in graphs[1]] == [{"collapse", "safety", "preference"}] * len(graphs[1])


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Both twins in one store: they share prompts, students, judges and small sources."""
    folder = tmp_path_factory.mktemp("twins")
    grid = "hydra.sweeper.also=[{mix: 'single,multi', generators: toy_small}]"
    synthdiv("-m", "experiment=eggs_70b_tiny", grid, *TINY, *BRIEF, cwd=folder)
    synthdiv("-m", "experiment=eggs_8b_tiny", *TINY, *BRIEF, cwd=folder)
    return folder / "outputs"


@pytest.mark.parametrize(
    ("name", "sizes"), [("eggs_8b_tiny", {"toy_small"}), ("eggs_70b_tiny", {"toy_small", "toy_large"})]
)
def test_a_twin_runs_and_every_arm_keeps_its_size_class(name, sizes, twins):
    """Mistake 4 of S1: labels without the size class let one size overwrite another."""
    arms = arms_of(collect(twins, name))
    tuned = [arm for arm in arms if arm.axes["mix"] in ("single", "multi")]
    assert len(tuned) == 2 * len(sizes)
    assert {arm.axes["generators"] for arm in tuned} == sizes
    names = [Labels(arms).name(arm) for arm in arms]
    assert len({*names}) == len(arms) == len(tuned) + 2, "vanilla and human stand beside them once"
    assert len(Ledger(twins, name).unique_cells()) == len(tuned) + 1


def test_a_report_shows_a_judge_as_validated_by_what_it_is(twins):
    """`synthdiv judge` writes a calibration where the report of every sweep with that judge looks."""
    lines, _ = judge_rows(Ledger(twins, "eggs_8b_tiny"))
    line = next(line for line in lines if (line["judge"], line["rubric"]) == ("phi", "quality 100"))
    assert line["checked against labels"].startswith("unvalidated")
    rows = [{"id": str(at), "verdict": at % 5 + 1, "human": at % 4 + 1} for at in range(200)]
    write_rows(twins.parent / "rated.jsonl", rows)
    words = ("--judge", "another name", "--identity", line["identity"], "--prompt", "id", "--label", "human")
    synthdiv("judge", "rated.jsonl", *words, cwd=twins.parent)
    for name in ("eggs_8b_tiny", "eggs_70b_tiny"):
        checked = {line["identity"]: line["checked against labels"] for line in judge_rows(Ledger(twins, name))[0]}
        assert checked[line["identity"]].startswith("validated on 200 items labelled by human")
        assert sum(text.startswith("validated") for text in checked.values()) == 1


def test_the_page_of_outputs_has_what_a_study_with_judges_and_requests_writes(twins):
    assert undocumented(twins) == set()
    assert {path.name for path in (twins / "artifacts").iterdir()} > {"judge_prompts", "verdicts", "requests", "safety"}


def test_an_interval_counts_prompts_and_not_pairs_of_sentences():
    """Mistake 7 of S1: 5,000 sentences are 12 million pairs, and these depend on each other. Ten near copies of each
    sentence are hardly any more evidence."""
    random = np.random.default_rng(0)
    topics = random.normal(size=(40, 16)) * random.choice([0.3, 3], size=(40, 1)) + 1
    many = np.repeat(topics, 10, axis=0) + random.normal(size=(400, 16)) * 0.01
    few, more = mean_cosine_distance(topics), mean_cosine_distance(many, np.repeat(np.arange(40), 10))
    assert more.n == few.n == 40
    assert more.high - more.low > 0.8 * (few.high - few.low)


def test_each_mistake_of_the_published_study_has_a_test_that_exists():
    """The list is in docs/eggs.md: mistake, and the tests that fail if it is made again."""
    rows = re.findall(
        r"^\| (\d) \|.*\| (.*) \|$", (ROOT / "docs" / "eggs.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [int(number) for number, _ in rows] == [*range(1, 10)]
    for number, cell in rows:
        tests = re.findall(r"`(tests/\S+\.py)::(\w+)`", cell)
        assert tests, number
        for file, function in tests:
            assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), (file, function)
