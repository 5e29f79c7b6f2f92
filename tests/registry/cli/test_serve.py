"""t2v serve: what it refuses, in one sentence each, before it listens."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from registry.cli import serve
from registry.cli.main import main

LONG = "a-token-of-16-letters-or-more"


def refused(*words: str, token: str | None = None, registry: str = "./registry") -> str:
    """The one sentence that a command ends with."""
    environment = {"T2V_TOKEN": token}
    result = CliRunner().invoke(main, ["--registry", registry, "serve", *words], env=environment)
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("Error: ").strip()


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_others_need_a_token_that_the_user_knows():
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        assert refused("--host", host).startswith(f"other machines can reach {host}, so a token is needed")


@pytest.mark.parametrize("token", ["short", "with a space in between it", "é" * 20, "tab\tin-the-middle-of"])
def test_a_token_that_is_none_is_refused(token, tmp_path):
    assert "must be 16 or more printable ASCII characters" in refused(token=token)
    (tmp_path / "token").write_text(token)
    message = refused("--token-file", "token", token=LONG)
    assert message.startswith("the token in token must be 16")
    assert token not in message


def test_a_token_file_that_is_not_there_is_refused():
    assert refused("--token-file", "nowhere").startswith("nowhere: the token cannot be read")


def test_a_port_that_is_taken_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused("--port", str(port))
    assert message == (
        f"127.0.0.1:{port} cannot be listened on: Address already in use; choose another --port, or 0 for any"
    )


def test_an_address_of_another_machine_is_reported():
    assert "cannot be listened on" in refused("--host", "192.0.2.1", token=LONG)
    assert "is no address that can be listened on" in refused("--host", "no such host", token=LONG)


def test_a_state_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    assert "the state folder cannot be written: Not a directory" in refused(
        "--port", "0", "--state", "file/state"
    )


def test_a_registry_elsewhere_needs_a_state_folder():
    message = refused("--port", "0", registry="s3://bucket/registry")
    assert "say with --state DIR where uploads, jobs and tokens are kept" in message


def test_a_root_that_is_not_there_is_reported():
    assert refused("--allow-root", "nowhere") == "--allow-root nowhere: there is no such folder"


@pytest.mark.parametrize("library", serve.NEEDED)
def test_a_missing_extra_is_one_sentence(library, monkeypatch):
    find_spec = serve.importlib.util.find_spec
    monkeypatch.setattr(
        serve.importlib.util, "find_spec", lambda name: None if name == library else find_spec(name)
    )
    assert refused() == f"t2v serve needs {library}; install it with `pip install 'task2vec-registry[web]'`"


def test_a_new_token_is_printed_once_and_works(tmp_path, monkeypatch):
    """Not in the log of requests; the one of the environment is for the server alone."""
    import httpx2

    monkeypatch.delenv("T2V_TOKEN", raising=False)
    program = str(Path(sys.executable).with_name("t2v"))
    environment = {name: value for name, value in os.environ.items() if name != "T2V_TOKEN"}
    process = subprocess.Popen(
        [program, "--registry", "./none", "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        url = process.stderr.readline().split(" at ")[1].split(" ")[0]
        token = process.stderr.readline().split(": ")[1].strip()
        assert len(token) >= 43
        with httpx2.Client(base_url=url) as client:
            assert client.get("/api/v1/jobs").status_code == 401
            assert client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200
            assert client.get("/").status_code == 200
    finally:
        process.terminate()
        rest = process.communicate(timeout=20)[1]
    assert process.returncode == 0
    assert "GET /api/v1/jobs 200" in rest
    assert token not in rest
    assert (tmp_path / "none.serve/jobs.sqlite").exists()
    assert not (tmp_path / "none").exists()
