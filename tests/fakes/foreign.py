"""A server nobody here wrote: LiteLLM's proxy, which answers by itself or passes calls on to the fake.

It lives in an environment of its own, named by PGFLYWHEEL_LITELLM_PYTHON:

    python -m venv /somewhere && /somewhere/bin/pip install 'litellm[proxy]'
    export PGFLYWHEEL_LITELLM_PYTHON=/somewhere/bin/python
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_port

PYTHON = os.environ.get("PGFLYWHEEL_LITELLM_PYTHON")
START = "import sys; from litellm.proxy.proxy_cli import run_server; sys.exit(run_server())"
REPLY = '{"critique": "It was said beforehand.", "verdict": "pass"}'


@dataclass(frozen=True)
class Foreign:
    """A running proxy: base URL and key; models are mock-judge, and passed-judge when there is an upstream."""

    url: str
    api_key: str


def config(upstream: str | None, reply: str) -> dict[str, Any]:
    """Return the proxy's configuration."""
    models: dict[str, dict[str, Any]] = {
        "mock-judge": {"model": "openai/gpt-4o-mini", "api_key": "none", "mock_response": reply}
    }
    if upstream is not None:
        models["passed-judge"] = {"model": "openai/judge", "api_key": "none", "api_base": upstream, "max_retries": 0}
    return {
        "model_list": [{"model_name": name, "litellm_params": params} for name, params in models.items()],
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }


@contextmanager
def litellm(
    folder: Path, python: str | None = PYTHON, upstream: str | None = None, reply: str = REPLY
) -> Iterator[Foreign]:
    """Run LiteLLM's proxy; its configuration and log are written into the folder, upstream is a fake's URL."""
    assert python is not None, "PGFLYWHEEL_LITELLM_PYTHON names no interpreter"
    (folder / "litellm.yaml").write_text(json.dumps(config(upstream, reply)))  # JSON is YAML too
    port, key = free_port(), f"sk-{secrets.token_hex(16)}"
    command = [
        python,
        "-c",
        START,
        "--config",
        str(folder / "litellm.yaml"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    known = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    with (
        (folder / "litellm.log").open("w") as log,
        subprocess.Popen(command, cwd=folder, env=os.environ | known, stdout=log, stderr=log) as process,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/health/liveliness", process)
            yield Foreign(f"http://127.0.0.1:{port}/v1", key)
        finally:
            process.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Wait until a page answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, "the proxy ended; its log says why"
            assert time.monotonic() < end, "the proxy does not answer"
            time.sleep(0.2)
