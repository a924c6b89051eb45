"""Servers from an environment of their own, started once a session."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.model_server import ModelServer

KEY = "sk-real-1234567"
ENVIRONMENT = Path(os.environ.get("PLANLOOM_REAL_SERVERS", ".venv-servers")).resolve()
START_SECONDS = 90.0


def missing(what: str) -> None:
    """Something is not installed: a plain run skips, this folder's own job fails."""
    if "PLANLOOM_REAL_SERVERS" in os.environ:
        pytest.fail(what)
    pytest.skip(what)


def _program(name: str) -> str:
    path = ENVIRONMENT / "bin" / name
    if not path.exists():
        missing(f"{name} is not in {ENVIRONMENT}: make test-servers installs it")
    return str(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _served(command: list[str], folder: Path, url: str) -> Iterator[None]:
    """The server while it is used."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment | {"NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        stdout=log,
        stderr=log,
    )
    try:
        _wait(process, url, folder / "server.log")
        yield
    finally:
        process.terminate()
        process.wait(15)
        log.close()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < until and process.poll() is None:
        try:
            opener.open(url, timeout=2)
        except OSError as error:
            if getattr(error, "code", None) is not None:  # it answers, if only that it may not
                return
            time.sleep(0.3)
        else:
            return
    raise AssertionError(f"{url} does not answer: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="session")
def behind() -> Iterator[ModelServer]:
    """The scripted endpoint that the proxy stands before."""
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="session")
def litellm(tmp_path_factory: pytest.TempPathFactory, behind: ModelServer) -> Iterator[str]:
    """The base URL of a LiteLLM proxy."""
    program = _program("litellm")
    folder = tmp_path_factory.mktemp("litellm")
    mocks = {
        "mock": "yes it is",
        "limited": "litellm.RateLimitError",
        "long": "litellm.ContextWindowExceededError",
        "broken": "litellm.InternalServerError",
    }
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_key": "x", "mock_response": text},
        }
        for name, text in mocks.items()
    ]
    params = {"model": "openai/behind", "api_key": "x", "api_base": behind.url}
    models.append({"model_name": "behind", "litellm_params": params})
    config = {
        "model_list": models,
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": KEY},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    port = _free_port()
    command = [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    served = _served(command, folder, f"{url}/health/liveliness")
    next(served)
    yield f"{url}/v1"
    next(served, None)


@pytest.fixture(scope="session")
def fakellm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a fakellm server."""
    program = _program("fakellm")
    folder = tmp_path_factory.mktemp("fakellm")
    answers = {"Write the plan": PLAN, "Outcomes": JOIN, "capital": "Oslo"}
    rules = [
        {"name": f"rule{n}", "when": {"messages_contain": text}, "respond": {"content": answer}}
        for n, (text, answer) in enumerate(answers.items())
    ]
    document = {"version": 1, "defaults": {"fallback": "deterministic_echo"}, "rules": rules}
    (folder / "fakellm.yaml").write_text(yaml.safe_dump(document))
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    served = _served([program, "serve", "--port", str(port)], folder, f"{url}/v1/models")
    next(served)
    yield f"{url}/v1"
    next(served, None)


PLAN = 'a = calculate(expression="6 * 7")\njoin(a)'
JOIN = '{"action": "finish", "answer": "42"}'
