"""A store of yesterday's release is today's when it is opened, once, whoever opens it; and back."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from cowest_graph import Trace, TraceStore
from cowest_graph.traces.migrations import FIRST
from cowest_graph.traces.migrations.down import downgrade
from cowest_graph.traces.tables import STORE_VERSION

_JOURNAL_4 = """
    create table journal (trace_key text not null, slot text not null, data json not null,
    primary key (trace_key, slot))
"""


def of_version_4(path: Path) -> Path:
    """A store as version 4 had it, with a trace and a journalled call."""
    with TraceStore(path) as store:
        store.record(Trace(query="6 + 1?", user="ada"))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("drop table journal")
        database.execute(_JOURNAL_4)
        database.execute("insert into journal values ('k', 'solo', '{\"text\": \"7\"}')")
        database.execute("update cowest_meta set value = '4' where name = 'schema_version'")
    return path


def told(path: Path) -> tuple[str, list[str], list[str]]:
    """The version, the journal's columns, and the tables of a store."""
    with closing(sqlite3.connect(path)) as database:
        (version,) = database.execute(
            "select value from cowest_meta where name = 'schema_version'"
        ).fetchone()
        columns = [row[1] for row in database.execute("pragma table_info(journal)")]
        tables = [row[0] for row in database.execute("select name from sqlite_master")]
    return version, columns, tables


def test_up_and_down_and_up_again_keeps_everything(tmp_path: Path) -> None:
    path = of_version_4(tmp_path / "t.db")
    for _ in range(2):
        with TraceStore(path) as store:
            assert [trace.user for trace in store] == ["ada"]
            assert store.finished("k") == {"solo": {"text": "7"}}
        assert told(path)[:2] == (
            str(STORE_VERSION),
            ["trace_key", "slot", "data", "created_at"],
        )
        assert downgrade(path, 4) == STORE_VERSION
        assert told(path)[:2] == ("4", ["trace_key", "slot", "data"])


def test_a_new_store_and_a_migrated_one_have_the_same_columns(tmp_path: Path) -> None:
    TraceStore(of_version_4(tmp_path / "old.db")).close()
    TraceStore(tmp_path / "new.db").close()
    assert told(tmp_path / "old.db")[:2] == told(tmp_path / "new.db")[:2]


def test_one_place_says_the_version(tmp_path: Path) -> None:
    TraceStore(of_version_4(tmp_path / "t.db")).close()
    assert not any("alembic" in table for table in told(tmp_path / "t.db")[2])


def test_a_change_that_was_made_already_is_passed_over(tmp_path: Path) -> None:
    """A table that an older store lacked is made as it is today, before its changes run."""
    path = of_version_4(tmp_path / "t.db")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("drop table journal")
        database.execute("update cowest_meta set value = '3' where name = 'schema_version'")
    TraceStore(path).close()
    assert told(path)[0] == str(STORE_VERSION)
    assert told(path)[1] == ["trace_key", "slot", "data", "created_at"]


def test_several_processes_open_an_older_store_at_once(tmp_path: Path) -> None:
    path = of_version_4(tmp_path / "t.db")
    code = "import sys; from cowest_graph import TraceStore; print(len(TraceStore(sys.argv[1])))"
    opened = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [process.communicate()[0] for process in opened] == [b"1\n"] * 3
    assert told(path)[0] == str(STORE_VERSION)


def test_several_threads_open_an_older_store_each(tmp_path: Path) -> None:
    paths = [of_version_4(tmp_path / f"{number}.db") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        for store in pool.map(TraceStore, paths):
            store.close()
    assert {told(path)[0] for path in paths} == {str(STORE_VERSION)}
    assert all("created_at" in told(path)[1] for path in paths)


def test_a_change_that_fails_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    path = of_version_4(tmp_path / "t.db")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("drop table journal")
        database.execute("create view journal as select 1 as trace_key")  # takes no column
    with pytest.raises(Exception, match="view"):
        TraceStore(path)
    assert told(path)[0] == "4"


@pytest.mark.parametrize("version", [FIRST - 1, STORE_VERSION + 1])
def test_a_version_that_there_is_no_way_to(tmp_path: Path, version: int) -> None:
    TraceStore(tmp_path / "t.db").close()
    with pytest.raises(ValueError, match=f"no way to version {version} of a store"):
        downgrade(tmp_path / "t.db", version)


def test_alembic_is_not_loaded_where_nothing_changes(tmp_path: Path) -> None:
    TraceStore(tmp_path / "t.db").close()
    code = (
        "import sys; from cowest_graph import TraceStore; TraceStore(sys.argv[1]).close();"
        "print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "t.db")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
