"""A secret and an address planted in everything are in nothing that is left, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import execute, schema

from cowest_graph import Trace, TraceStore
from cowest_graph.traces import Attempt
from cowest_graph.traces.tables import METADATA

SECRET, MAIL = "wQ7-planted-and-never-told-92", "ada.lovelace@example.org"
ROOT = Path(__file__).parents[3]


def run(*command: str, folder: Path) -> str:
    places = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    ran = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PLANTED_API_KEY": SECRET, "PYTHONPATH": os.pathsep.join(places)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (folder / "said.txt").open("a").write(ran.stdout + ran.stderr)
    return ran.stdout


def found(folder: Path, *words: str) -> list[str]:
    """The files that hold one of the words."""
    return [
        f"{path.name}: {word}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for word in words
        if word.encode() in path.read_bytes()
    ]


def rows(url: str) -> Iterator[str]:
    """Every row of every table, and what PostgreSQL's planner remembers of their values."""
    engine = sa.create_engine(url)
    names = [*METADATA.tables]
    if engine.dialect.name == "postgresql":
        names.append("pg_stats")
    with engine.connect() as connection:
        for name in names:
            for row in connection.execute(sa.text(f"select * from {name}")):
                yield str(tuple(row))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/traces.db"
    return schema(request.getfixturevalue("postgres"))


WORDS = (SECRET, MAIL, "lovelace", "example.org")


def test_what_is_redacted_is_in_no_file_table_span_or_log(place: str, tmp_path: Path) -> None:
    app = str(Path(__file__).with_name("app.py"))
    told = json.loads(run(app, place, str(tmp_path), folder=tmp_path))
    assert told["traces"] >= 4
    assert told["refused"] >= 1
    assert found(tmp_path, *WORDS) == []
    assert not [row for row in rows(place) if any(word in row for word in WORDS)]
    written = (tmp_path / "out.jsonl").read_text()
    assert "[REDACTED_EMAIL]" in written
    assert "the redact hook raised RuntimeError" in (tmp_path / "app.log").read_text()
    spans = (tmp_path / "spans.jsonl").read_text()
    assert "gen_ai.output.messages" in spans
    assert "[REDACTED_EMAIL]" in spans


def test_what_is_forgotten_is_in_no_file_and_no_row(place: str, tmp_path: Path) -> None:
    """Nothing is redacted here; the command line forgets, in a process of its own."""
    with TraceStore(place) as store:
        for number in range(30):
            said = f"{MAIL} {number} " + f"{MAIL}, " * 300
            tried = [Attempt(index=0, draft=said, answer=said)]
            for user, text in (("ada", said), ("bob", f"what bob asks {number}")):
                trace = Trace(
                    query=text, kind="inference", user=user, attempts=tried[: user == "ada"]
                )
                store.record(trace)
                store.feedback(trace_key=trace.key, key="note", comment=text)
        spool = tmp_path / "traces.db.spool.jsonl"
        if place.startswith("sqlite"):
            spool.write_text(Trace(query=MAIL, user="ada").model_dump_json() + "\n")
    (tmp_path / "cowest.toml").write_text(f"[traces]\nurl = {json.dumps(place)}\n")
    cowest = ("-m", "trainer.cli", "forget", "--user", "ada")
    dry = json.loads(run(*cowest, "--json", folder=tmp_path))
    assert not dry["done"]
    (counts,) = dry["stores"].values()
    assert counts["traces"] == counts["feedback"] == 30
    assert any(MAIL in row for row in rows(place))
    (counts,) = json.loads(run(*cowest, "--yes", "--json", folder=tmp_path))["stores"].values()
    assert (counts["traces"], counts["left"]) == (30, None)
    assert found(tmp_path, *WORDS) == []
    assert not [row for row in rows(place) if any(word in row for word in WORDS)]
    with TraceStore(place) as store:
        assert [trace.user for trace in store] == ["bob"] * 30
        assert len(store.feedbacks()) == 30


@pytest.mark.parametrize(
    ("isolation", "reads", "said"),
    [
        ("REPEATABLE READ", "select 1", "dead row versions cannot be removed yet"),
        ("READ COMMITTED", "select count(*) from traces", "lock timeout"),
    ],
)
def test_postgresql_tells_what_an_older_transaction_keeps(
    postgres: str, isolation: str, reads: str, said: str
) -> None:
    place = schema(postgres)
    engine = sa.create_engine(place, isolation_level=isolation)
    with TraceStore(place) as store:
        store.record(Trace(query=MAIL, user="ada"))
        with engine.connect() as reader:
            reader.exec_driver_sql(reads)
            assert said in str(store.forget(user="ada", patience=0.2).left)
        assert store.forget(user="ada").left is None
    engine.dispose()


def test_postgresql_tells_what_another_role_owns(postgres: str) -> None:
    place = schema(postgres)
    TraceStore(place).close()
    name = place.rpartition("%3D")[2]
    execute(
        place,
        f"drop role if exists clerk_{name}",
        f"create role clerk_{name} login",
        f"grant usage on schema {name} to clerk_{name}",
        f"grant all on all tables in schema {name} to clerk_{name}",
    )
    with TraceStore(place.replace("postgres@", f"clerk_{name}@")) as store:
        store.record(Trace(query=MAIL, user="ada"))
        assert "permission denied" in str(store.forget(user="ada").left)


def test_tables_go_up_and_down_on_both_databases(place: str) -> None:
    from cowest_graph.traces.migrations.down import downgrade

    def columns() -> set[str]:
        engine = sa.create_engine(place)
        names = {column["name"] for column in sa.inspect(engine).get_columns("journal")}
        engine.dispose()
        return names

    with TraceStore(place) as store:
        store.record(Trace(query="x", user="ada"))
        store.remember("k", "solo", {"text": "7", "calls": []})
        now = columns()
    downgrade(place, 4)
    assert columns() == now - {"created_at"}
    with TraceStore(place) as store:
        assert columns() == now
        assert len(store) == 1
        assert store.finished("k") == {"solo": {"text": "7", "calls": []}}


def test_several_processes_bring_one_store_up_to_date(place: str, tmp_path: Path) -> None:
    from cowest_graph.traces.migrations.down import downgrade

    TraceStore(place).close()
    downgrade(place, 4)
    code = "import sys; from cowest_graph import TraceStore; print(len(TraceStore(sys.argv[1])))"
    opened = [
        subprocess.Popen([sys.executable, "-c", code, place], stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(4)
    ]
    assert [process.communicate()[0] for process in opened] == [b"0\n"] * 4
