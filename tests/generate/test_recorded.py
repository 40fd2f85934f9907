"""Recorded answers: matched by id or by prompt, and identified by the content of their file."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pyarrow.parquet
import pytest

from synthdiv.core.fields import problems
from synthdiv.core.resolver import Resolver
from synthdiv.core.stage import Node
from synthdiv.core.types import Artifact, ConfigError, DataError
from synthdiv.generate.generate import Generate, read_samples
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.prompts.prompt_set import Prompts
from synthdiv.prompts.table import Columns, Table
from tests.conftest import write_files, write_rows

FIELDS_SHOWN = ("generate.recorded.context",)

RUN = SimpleNamespace(progress=lambda *_: None)


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_files(tmp_path)


@pytest.fixture
def prompts(rows, tmp_path):
    stage = Prompts(table=Table(path="prompts.jsonl", columns=Columns(id="id")), test=6)
    stage.resolve(Resolver(tmp_path / "out"))
    (tmp_path / "prompts").mkdir()
    stage.build({}, tmp_path / "prompts", RUN)
    return Artifact(stage, Node(stage).key, tmp_path / "prompts")


def recorded(path="answers.jsonl", answerer="one", **columns):
    return Recorded(path, answerer=answerer, **columns)


def answers(spec, prompts, tmp_path, shard=0):
    stage = Generate("yew", Backend.recorded, spec, rows=24, shard_rows=2, shard=shard)
    out = tmp_path / f"shard-{shard}"
    out.mkdir(exist_ok=True)
    summary = stage.build({"prompts": prompts}, out, RUN)
    return read_samples(out, failed=True), summary


@pytest.mark.parametrize("columns", [{"id": "id"}, {}])
def test_answers_are_matched_by_id_or_by_prompt(columns, prompts, tmp_path, rows):
    expected = {row["id"]: f"one says {row['response']}" for row in rows}
    ids = []
    for shard in range(12):
        samples, summary = answers(recorded(**columns), prompts, tmp_path, shard)
        assert {sample.response for sample in samples} == {expected[sample.id] for sample in samples}
        provenance = {(sample.source, sample.finish, sample.response_tokens) for sample in samples}
        assert provenance == {("yew", "recorded", -1)}
        assert summary["rows"] == len(samples)
        ids += [sample.id for sample in samples]
    assert len(ids) == len(set(ids)) == 24


def test_case_and_spaces_of_a_prompt_do_not_matter(prompts, tmp_path, rows):
    loud = [row | {"prompt": f"  {str(row['prompt']).upper()} ", "response": "loud"} for row in rows]
    write_rows(tmp_path / "loud.jsonl", loud)
    samples, _ = answers(recorded("loud.jsonl", None), prompts, tmp_path)
    assert {sample.response for sample in samples} == {"loud"}


def test_answers_that_are_missing_are_named_and_none_at_all_is_an_error(prompts, tmp_path, rows):
    samples, _ = answers(recorded(id="id"), prompts, tmp_path)
    gone = samples[1].id
    write_rows(tmp_path / "gap.jsonl", [row for row in rows if row["id"] != gone])
    _, summary = answers(recorded("gap.jsonl", None, id="id"), prompts, tmp_path)
    assert (summary["failed"], summary["finish"]) == ({gone: "the file has no answer"}, {"recorded": 1, "failed": 1})
    with pytest.raises(DataError, match=rf"yew failed on 1 of 2 prompts \({gone}\); .*requests.jsonl says why. Leave"):
        read_samples(tmp_path / "shard-0")
    write_rows(tmp_path / "gap.jsonl", [row | {"id": f"other {row['id']}"} for row in rows])
    with pytest.raises(DataError, match=rf"yew: gap\.jsonl answers none of 2 prompts \(first '{samples[0].id}'\)"):
        answers(recorded("gap.jsonl", None, id="id"), prompts, tmp_path)


def key(spec, tmp_path):
    spec.resolve(Resolver(tmp_path / "out"), "r")
    return Node(Generate("yew", Backend.recorded, spec), {"prompts": Node(Prompts())}).key


def test_the_content_is_the_identity_and_the_path_is_not(rows, tmp_path):
    before = key(recorded(id="id"), tmp_path)
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "answers.jsonl").read_bytes())
    assert key(recorded("copy.jsonl", id="id"), tmp_path) == before
    assert key(recorded(answerer="two", id="id"), tmp_path) != before
    with (tmp_path / "answers.jsonl").open("a") as handle:
        handle.write('{"id": "new", "prompt": "p", "response": "r", "source": "one"}\n')
    changed = recorded(id="id")
    assert key(changed, tmp_path) != before
    assert changed.rows == 31


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (recorded(answerer="three"), r"r\.answerer=three: no row of that source; there are one, two"),
        (recorded(source="by"), r"r\.source=by: no such column in answers\.jsonl; it has id, prompt, response, source"),
        (recorded(response="text"), r"r\.response=text: no such column"),
        (recorded(id="key"), r"r\.id=key: no such column"),
        (recorded(context="c"), r"r\.context=c: no such column"),
        (recorded(path="none.jsonl"), r"r\.path=none\.jsonl: no such file"),
    ],
)
def test_a_missing_source_column_or_file_is_named_with_the_choices(spec, message, rows, tmp_path):
    with pytest.raises(ConfigError, match=message):
        spec.resolve(Resolver(tmp_path / "out"), "r")


def test_two_different_answers_of_one_source_to_one_prompt_are_refused(rows, tmp_path):
    write_rows(tmp_path / "twice.jsonl", [*rows, rows[0]])
    assert len(recorded("twice.jsonl", None, id="id").answers("r")) == 30, "a repeated line is no contradiction"
    write_rows(tmp_path / "twice.jsonl", [*rows, rows[0] | {"response": "another"}])
    with pytest.raises(DataError, match=r"line 31: a second, different answer to 'q0'; choose one with r\.where"):
        recorded("twice.jsonl", None, id="id").answers("r")


@pytest.mark.parametrize(
    ("sampling", "message"),
    [(Sampling(-1), "s.temperature=-1"), (Sampling(1, 0), "s.top_p=0"), (Sampling(1, 1, 0), "s.max_new_tokens=0")],
)
def test_problems_of_sampling_are_named(sampling, message):
    (problem,) = problems(sampling, "s")
    assert problem.startswith(message)


def test_without_an_answerer_rows_of_two_sources_contradict(rows, tmp_path):
    with pytest.raises(DataError, match=r"a second, different answer to"):
        recorded(answerer=None).answers("r")


def test_a_context_column_precedes_the_prompt(rows, tmp_path):
    write_rows(tmp_path / "context.jsonl", [{"prompt": "Why?", "about": "Rain.", "response": "clouds"}])
    assert recorded("context.jsonl", None, context="about").answers("r") == {"rain. why?": ["clouds"]}


def chat(row, roles=("user", "assistant"), role="role", content="content"):
    turns = zip(roles, (row["prompt"], row["response"]), strict=True)
    return [{role: "system", content: "Be brief."}, *({role: name, content: text} for name, text in turns)]


def batch(row):
    parts = [{"type": "text", "text": row["response"]}]
    choices = [{"index": 0, "message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}]
    return {"custom_id": row["id"], "response": {"status_code": 200, "body": {"choices": choices}}, "error": None}


PUBLISHED = {  # the forms in which people have answers, and the columns that read them
    "model_outputs.json": (
        lambda row: {"instruction": row["prompt"], "output": row["response"], "generator": "gpt"},
        {"prompt": "instruction", "response": "output", "source": "generator", "answerer": "gpt"},
    ),
    "messages.jsonl": (lambda row: {"messages": chat(row)}, {"prompt": "messages", "response": "messages"}),
    "sharegpt.json": (
        lambda row: {"id": row["id"], "conversations": chat(row, ("human", "gpt"), "from", "value")},
        {"prompt": "conversations", "response": "conversations"},
    ),
    "messages.parquet": (lambda row: {"messages": chat(row)}, {"prompt": "messages", "response": "messages"}),
    "batch_output.jsonl": (batch, {"id": "custom_id"}),
    "path.jsonl": (batch, {"id": "custom_id", "response": "response.body.choices.0.message"}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_are_read_in_the_forms_in_which_people_have_them(name, rows, tmp_path):
    write, columns = PUBLISHED[name]
    records = [write(row) for row in rows]
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / name)
    elif name.endswith(".json"):
        (tmp_path / name).write_text(json.dumps(records))
    else:
        write_rows(tmp_path / name, records)
    spec = Recorded(name, **columns)
    spec.resolve(Resolver(tmp_path / "out"), "r")
    assert spec.answers("r") == {spec.key(row["id"], row["prompt"]): [row["response"]] for row in rows}


def test_what_a_server_did_not_answer_is_no_answer(rows, tmp_path):
    failed = {"custom_id": "q1", "response": {"status_code": 500, "body": {"error": {"message": "x"}}}, "error": None}
    write_rows(tmp_path / "batch.jsonl", [batch(rows[0]), failed])
    with pytest.raises(DataError, match=r"batch\.jsonl, line 2: column response is an object; it needs a text"):
        Recorded("batch.jsonl", id="custom_id").answers("r")
    assert len(Recorded("batch.jsonl", id="custom_id", where=["response.status_code=200"]).answers("r")) == 1


def test_a_list_of_answers_is_as_many_samples(prompts, tmp_path, rows):
    several = [row | {"response": [f"{row['id']} {n}" for n in range(2 + (row["id"] == "q0"))]} for row in rows]
    write_rows(tmp_path / "several.jsonl", several)
    spec = Recorded("several.jsonl", id="id")
    stage = Generate("yew", Backend.recorded, spec, rows=24, shard_rows=2, samples=2)
    (tmp_path / "shard").mkdir()
    stage.build({"prompts": prompts}, tmp_path / "shard", RUN)
    samples = read_samples(tmp_path / "shard")
    assert [(row.sample, row.response) for row in samples] == [
        (n, f"{row.id} {n}") for n, row in zip([0, 1] * 2, samples, strict=True)
    ]
    assert len(spec.answers("r", 3)) == 1, "one prompt has three"


def test_numbers_and_forms_of_unicode_that_mean_the_same_are_matched(rows, tmp_path):
    write_rows(tmp_path / "numbers.jsonl", [{"id": 1.0, "response": "a"}, {"id": "2.0", "response": "b"}])
    spec = Recorded("numbers.jsonl", id="id")
    assert [spec.answers("r")[spec.key(id, "")] for id in ("1", "2.0")] == [["a"], ["b"]]
    assert spec.key("v1.0.5", "") == "v1.0.5"
    write_rows(tmp_path / "forms.jsonl", [{"prompt": "Caf\u0065\u0301?", "response": "a"}])
    spec = Recorded("forms.jsonl")
    assert spec.answers("r")[spec.key("", "CAF\u00c9?")] == ["a"]
    assert spec.key("", "x\u00b2") != spec.key("", "x2"), "another text is another prompt"


def test_a_conflict_of_another_source_does_not_refuse_the_file(rows, tmp_path):
    write_rows(tmp_path / "both.jsonl", [row | {"source": "one"} for row in rows] + [
        rows[0] | {"source": "two", "response": answer} for answer in "ab"
    ])  # fmt: skip
    assert len(recorded("both.jsonl", "one", id="id").answers("r")) == 30
    with pytest.raises(DataError, match="a second, different answer of two to 'q0'"):
        recorded("both.jsonl", "two", id="id").answers("r")
