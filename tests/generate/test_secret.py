"""A key is in no file and in no message, wherever somebody put it."""

from __future__ import annotations

import pytest

from synthdiv.core.runtime import Server
from synthdiv.core.types import ConfigError, DataError
from synthdiv.generate.client import Client
from synthdiv.generate.hosted import Hosted, listed
from synthdiv.generate.spend import FILE as SPENT
from tests.conftest import FILES, synthdiv, write_files
from tests.generate.fault_server import FaultServer
from tests.generate.hosting import asks, collected, server
from tests.models.small import cpu_run

CELL = [
    *FILES, "mix=single", "generators.shard_rows=12", "track=wandb", "runtime.budget_usd=5",
    "generators.models=[{name: oak, backend: api, hosted: {server: here, id: tiny-chat}, "
    "sampling: {max_new_tokens: 20}, facts: {family: oak, price_in: 1, price_out: 2}}]",
]  # fmt: skip
SECRET = "Qm2xLz93vB"


def holding(folder, texts=()):
    """Whatever was said or written with the secret in it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if SECRET.encode() in path.read_bytes()] + [text for text in texts if SECRET in text]


@pytest.mark.parametrize("engine", [[], ["hydra/launcher=local", "hydra.launcher.jobs=1"]], ids=["inline", "local"])
def test_the_key_is_in_no_file(tmp_path, engine):
    """A whole cell, tracked: once with a key that the server refuses, then with the right one."""
    write_files(tmp_path)
    with FaultServer(key=f"sk-right-{SECRET}") as fault:
        servers = f'runtime.servers=[{{name: here, url: "{fault.url}", key: TEST_KEY, timeout_seconds: 5}}]'
        words, own = [*CELL, servers, *engine], {"WANDB_MODE": "offline", "OPENAI_LOG": "info"}
        wrong = synthdiv(*words, cwd=tmp_path, code=1, TEST_KEY=f"sk-wrong-{SECRET}", **own)
        assert "TEST_KEY (401)" in wrong.stdout + wrong.stderr
        assert fault.asked["without the key"] == 1
        right = synthdiv(*words, cwd=tmp_path, TEST_KEY=f"sk-right-{SECRET}", **own)
    assert holding(tmp_path, (wrong.stdout, wrong.stderr, right.stdout, right.stderr)) == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert any(path.name == SPENT for path in files)
    assert not list((tmp_path / "outputs" / "artifacts").glob("*/.*"))


@pytest.mark.parametrize(
    "wrong",
    [
        f"runtime.servers.0.key=sk-{SECRET}",
        f'runtime.servers=[{{name: here, url: "http://me:{SECRET}@127.0.0.1:9/v1"}}]',
    ],
    ids=["key", "url"],
)
@pytest.mark.parametrize("grid", [[], ["-m", "train.seed=0,1"]], ids=["cell", "sweep"])
def test_a_key_on_the_command_line_is_neither_printed_nor_written(tmp_path, typed, wrong, grid):
    write_files(tmp_path)
    words = [*grid, *CELL, 'runtime.servers=[{name: here, url: "http://127.0.0.1:9/v1"}]', wrong]
    result = typed(*words)
    assert result.code == 2
    assert f"error: runtime.servers.0.{'key: give the name' if '.key' in wrong else 'url: needs http'}" in result.err
    assert holding(tmp_path, (result.out, result.err)) == []


def test_a_key_is_asked_for_by_name_and_never_shown(monkeypatch):
    with FaultServer(key="sk-right") as fault:
        run = cpu_run(servers=[server(fault, key="TEST_KEY")])
        for value, expected in (
            (None, "is not set"),
            (" ", "is not set"),
            ("sk-a\nb", "has characters that keys do not contain"),
        ):
            monkeypatch.delenv("TEST_KEY", raising=False)
            if value is not None:
                monkeypatch.setenv("TEST_KEY", value)
            with pytest.raises(ConfigError, match=f"TEST_KEY {expected}") as caught:
                listed(Hosted("here", "tiny-chat"), run)
        monkeypatch.setenv("TEST_KEY", "sk-old-and-secret")
        with pytest.raises(
            ConfigError, match=r"rejects the key in the environment variable TEST_KEY \(401\)"
        ) as caught:
            listed(Hosted("here", "tiny-chat"), run)
        assert "sk-old" not in str(caught.value)
        assert fault.asked["without the key"] == 1
        monkeypatch.setenv("TEST_KEY", "sk-right\n")
        assert listed(Hosted("here", "tiny-chat"), run)
        for status in (400, 403):
            fault.rule = lambda _, status=status: (status, {"error": {"message": "you sent sk-right"}})
            with pytest.raises(DataError, match=r"you sent \*\*\*"):
                collected(Client(server(fault, key="TEST_KEY"), "tiny-chat", "completions"), asks("say"))


def test_a_key_in_place_of_its_name_is_refused_and_not_repeated():
    for key in ("sk-abc", "9abc", "a b", "GEMINI-KEY", "a0" * 32, "a1B2" * 8, "gsk_" + "a1B2" * 8):
        assert Server("here", "http://x", key).check("runtime.servers.0") == [
            "runtime.servers.0.key: give the name of an environment variable, never the key itself"
        ]
    for key in ("", "OPENAI_API_KEY", "_k", "key2", "THE_KEY_OF_THE_SERVER_ON_THE_FIFTH_FLOOR"):
        assert Server("here", "http://x", key).check("runtime.servers.0") == []
    for url in ("http://me:secret@x/v1", "https://secret@x", "http://x/v1?key=secret", "x#secret", "secret", "http://"):
        (problem,) = Server("here", url).check("runtime.servers.0")
        assert problem.startswith("runtime.servers.0.url: needs http://… or https://…, no user")
        assert "secret" not in problem
    for part in ("sk-secret", "a1" * 11, "v1/secret" + "5f" * 9 + "/v1"):
        (problem,) = Server("here", f"https://x/{part}").check("s")
        assert problem.startswith("s.url: a part of its path may be a key")
        assert "secret" not in problem
    for url in ("http://x/{A_LONG_NAME_OF_A_VARIABLE}/v1", "https://x/openai/deployments/gpt-4o-mini/v1"):
        assert Server("here", url).check("s") == []
    assert Server("here", "http://[::1]:80/v1/a@b/").check("s") == []


def test_a_key_in_the_address_comes_from_the_environment_and_is_masked(monkeypatch):
    key = f"sk-{SECRET}-secret-of-the-path"
    monkeypatch.setenv("TEST_KEY", key)
    with FaultServer(rule=lambda _: (400, {"error": {"message": f"no {key}"}})) as fault:
        client = Client(server(fault, url=f"{fault.url}/{{TEST_KEY}}"), "tiny-chat", "completions")
        with pytest.raises(DataError, match=r"v1/\{TEST_KEY\}\) refuses q0 \(400\): no \*\*\*"):
            collected(client, asks("say"))
        assert fault.paths[-1] == f"/v1/{key}/completions"
