"""Servers of the tests' own: a Postgres to be killed, and a pgbouncer before one."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgflywheel.db import embedded, schema
from pgflywheel.errors import Unreachable
from tests.conftest import POSTGRES_VERSION
from tests.faults.books import answers, wait_until
from tests.faults.workers import children_of, kill


@dataclass
class OwnServer:
    """An embedded Postgres with default durability."""

    folder: Path
    dsn: str = ""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        """Start or restart it."""
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o755)
        for attempt in range(6):
            try:
                self.dsn = embedded.start(self.data, POSTGRES_VERSION, {"timezone": "UTC"})
                return
            except Unreachable:  # it is given ten seconds, and a recovery may take longer
                if attempt == 5:
                    raise

    def stop(self) -> None:
        """Stop it; its folder goes with the run's."""
        embedded.stop(self.data, POSTGRES_VERSION)

    def kill(self) -> None:
        """SIGKILL every process of it at once."""
        processes = [self.pid, *children_of(self.pid)]
        for process in processes:
            kill(process)
        wait_until("the server is gone", lambda: not any(Path(f"/proc/{process}").exists() for process in processes))

    def kill_a_backend(self, chance: random.Random) -> None:
        """SIGKILL one backend: the server drops all the others, recovers and goes on."""
        with psycopg.connect(self.dsn, autocommit=True) as session:
            found = session.execute(
                "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
            ).fetchall()
        kill(chance.choice(found)[0] if found else children_of(self.pid)[0])
        time.sleep(0.5)
        wait_until("the server is back", lambda: answers(self.dsn))

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a database with an install in it."""
        name = f"own_{uuid4().hex[:12]}"
        with psycopg.connect(self.dsn, autocommit=True) as session:
            session.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        dsn = make_conninfo(self.dsn, dbname=name)
        schema.upgrade(dsn)
        yield dsn
        with psycopg.connect(self.dsn, autocommit=True) as session:
            session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
BOUNCER_PORT = 6432  # names the socket; nothing listens on the network
_CONFIG = """
[databases]
* = host={host} port={port} user={user}

[pgbouncer]
listen_addr =
listen_port = {bouncer_port}
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = 8
max_client_conn = 100
{prepared}
logfile = {folder}/pgbouncer.log
"""


def knows_prepared_statements() -> bool:
    """Tell whether this pgbouncer follows prepared statements from server to server (1.21 does)."""
    said = subprocess.run([str(PGBOUNCER), "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = said.split()[1].split(".")[:2]
    return (int(major), int(minor)) >= (1, 21)


@contextmanager
def bouncer(dsn: str, folder: Path) -> Iterator[str]:
    """Put a pgbouncer in transaction mode before a database; yields the DSN through it."""
    given = conninfo_to_dict(dsn)
    config = folder / "pgbouncer.ini"
    config.write_text(
        _CONFIG.format(
            host=given["host"],
            port=given.get("port", 5432),
            user=given["user"],
            folder=folder,
            bouncer_port=BOUNCER_PORT,
            prepared="max_prepared_statements = 100" if knows_prepared_statements() else "",
        )
    )
    process = subprocess.Popen(
        [str(PGBOUNCER), *_as_owner_of(str(given["host"]), folder), str(config)], stderr=subprocess.DEVNULL
    )
    try:
        through = make_conninfo(host=str(folder), port=BOUNCER_PORT, user="anybody", dbname=given["dbname"])
        wait_until("pgbouncer answers", lambda: answers(through), 20)
        yield through
    finally:
        process.terminate()
        process.wait(20)


def _as_owner_of(server: str, folder: Path) -> list[str]:
    """Return the option without which root cannot run it: who reaches a server's socket reaches the server."""
    if os.geteuid() != 0:
        return []
    user = Path(server).owner() if server.startswith("/") else "nobody"
    shutil.chown(folder, user)
    return ["-u", user]
