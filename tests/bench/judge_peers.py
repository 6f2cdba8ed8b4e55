"""Other libraries that judge with a model, each installed from PyPI into an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.mind import Asked, Judgement

FOLDER = Path(tempfile.gettempdir()) / "pgflywheel-bench-judges"
PACKAGES = {"geval": ("deepeval",), "phoenix": ("arize-phoenix-evals", "openai")}
INSTALL_SECONDS, MOST_SECONDS = 400, 600
QUIET = {"DEEPEVAL_TELEMETRY_OPT_OUT": "YES", "ERROR_REPORTING": "NO"}


def mind(asked: Asked) -> Judgement:
    """Pass everything, also in the form GEval reads out of plain text."""
    plain = asked.body.get("response_format") is None and not asked.body.get("tools")
    content = json.dumps({"reason": "It was read with care.", "score": 9}) if plain else None
    return Judgement("pass", content=content)


@dataclass(frozen=True)
class Peer:
    """A library, its version, and the Python it is installed for."""

    name: str
    version: str
    python: Path

    def seconds(self, url: str, prompts: Path, concurrency: int) -> float:
        """Return how long it takes for all items."""
        script = Path(__file__).with_name(f"peer_{self.name}.py")
        command = [str(self.python), str(script), url, str(prompts), str(concurrency)]
        with tempfile.TemporaryDirectory() as folder:  # what it writes lies beside nothing of ours
            environment = {**os.environ, **QUIET, "HOME": folder}
            environment.pop("PYTHONPATH", None)
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=MOST_SECONDS
            )
        if done.returncode:
            raise RuntimeError(f"{self.name} failed\n{done.stderr[-2000:]}")
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def available(notes: list[str]) -> list[Peer]:
    """Install the peers where that is possible; a note says which version, or that one is left out."""
    peers = []
    for name, packages in PACKAGES.items():
        python = FOLDER / name / "bin" / "python"
        version = _version(python, packages[0]) or (_install(name, packages) and _version(python, packages[0]))
        notes.append(f"{packages[0]} {version}" if version else f"{packages[0]} cannot be installed: left out")
        if version:
            peers.append(Peer(name, version, python))
    return peers


def _install(name: str, packages: tuple[str, ...]) -> bool:
    folder = FOLDER / name
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, check=True)
        subprocess.run(pip, capture_output=True, check=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _version(python: Path, package: str) -> str | None:
    code = f"import importlib.metadata as found; print(found.version({package!r}))"
    if not python.exists():
        return None
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or None
