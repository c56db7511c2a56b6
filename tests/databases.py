"""Databases as users have them: a file of SQLite, and a real PostgreSQL on a socket of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

from cowest_graph.traces import TraceStore


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL of our own on a Unix socket; its `options` are left to fill in."""
    found = importlib.util.find_spec("pgserver")
    if found is None or found.origin is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("no PostgreSQL: pip install pgserver 'psycopg[binary]'")
    package = Path(found.origin).parent
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 bytes
    user = None
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root, and another user may not be able to reach the package:
        # so a copy, owned by nobody, which leaves users and permissions of the machine alone.
        user = "nobody"
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.parent / name, folder / name)
        package = folder / package.name
        shutil.chown(folder, user)
    programs, data = package / "pginstall" / "bin", str(folder / "data")

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", data, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, user=user)

    try:
        run("initdb", "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")
        run("pg_ctl", "-w", "-l", f"{data}.log", "-o", f"-h '' -k {folder} -F", "start")
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}&options={{}}"
        run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
