"""Databases as users have them: a file of SQLite, and a real PostgreSQL on a socket of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

from cowest_graph.traces import TraceStore


class Server:
    """A PostgreSQL of our own on a Unix socket; `url`'s `options` are left to fill in."""

    def __init__(self, folder: Path, package: Path) -> None:
        self.folder, self._user = folder, None
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and another user may not be able to reach the
            # package: so a copy, owned by nobody, which leaves the machine's users alone.
            self._user = "nobody"
            for name in (package.name, f"{package.name}.libs"):
                shutil.copytree(package.parent / name, folder / name)
            package = folder / package.name
            shutil.chown(folder, self._user)
        self._programs, self._data = package / "pginstall" / "bin", str(folder / "data")
        self.url = f"postgresql+psycopg://postgres@/postgres?host={folder}&options={{}}"
        self._run("initdb", "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")

    def start(self) -> None:
        options = f"-h '' -k {self.folder} -F"
        self._run("pg_ctl", "-w", "-l", f"{self._data}.log", "-o", options, "start")

    def stop(self) -> None:
        """As a crash would: nothing is written before it ends."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", self._data, *arguments]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, stdout=quiet, cwd=self.folder, user=self._user)


@contextmanager
def server() -> Iterator[Server]:
    """A server that is running, and gone afterwards."""
    found = importlib.util.find_spec("pgserver")
    if found is None or found.origin is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("no PostgreSQL: pip install pgserver 'psycopg[binary]'")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 bytes
    try:
        made = Server(folder, Path(found.origin).parent)
        made.start()
        yield made
        made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL of our own; its `options` are left to fill in."""
    with server() as made:
        yield made.url


_numbers = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/traces.db"
    return schema(request.getfixturevalue("postgres"))


def schema(postgres: str) -> str:
    """A URL that sees a schema of its own, which is quicker made than a database."""
    name = f"traces{next(_numbers)}"
    execute(postgres.format(""), f"create schema {name}")
    return postgres.format(f"-csearch_path%3D{name}")


def execute(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[TraceStore]:
    with TraceStore(url) as opened:
        yield opened
