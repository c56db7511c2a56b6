"""The tables' changes from version to version, by Alembic's scripts and operations.

Knows the folder `versions`: a file a version, `upgrade` to it and `downgrade` from it. Knows no
table of today: a script says what it changes in words of its own, for it runs years later. Alembic
is imported when there is something to change, and not before.

One truth: which version a store has stands in its table `cowest_meta` alone, as it did before there
was Alembic, so that older releases refuse a newer store by it. Alembic's own table
(`alembic_version`) is neither made nor read; a revision's name is the version. All changes, and the
row that says so, are one transaction under the lock that every writer takes.

Tables that a store lacks are made as they are today before its scripts run, so a script looks
whether there is something to change (`columns`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.script import Script

FIRST = 4
"""The version from which on there are scripts; what is older is brought to it by `tables`."""
_FOLDER = Path(__file__).parent
_ONE_AT_A_TIME = threading.Lock()  # `alembic.op` is one for a process, whatever its threads open


def migrate(connection: sa.Connection, version: int, target: int) -> None:
    """Run the scripts between two versions, up or down, in the transaction that is under way.

    Args:
        connection: in a transaction that writes.
        version: of the store; one before `FIRST` has all that `FIRST` has by now.
        target: the version that it is to have.

    Raises:
        ValueError: when there is no such version.
    """
    version = max(version, FIRST)
    if version == target:
        return
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    scripts = list(_between(version, target))
    with _ONE_AT_A_TIME, Operations.context(MigrationContext.configure(connection)):
        for script in scripts:
            (script.module.upgrade if target > version else script.module.downgrade)()


def _between(version: int, target: int) -> Iterator[Script]:
    """The scripts from one version to another, in the order in which they run."""
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    directory = ScriptDirectory(str(_FOLDER), version_locations=[str(_FOLDER / "versions")])
    low, high = sorted((version, target))
    try:
        scripts = list(directory.iterate_revisions(str(high), str(low)))  # the newest first
    except CommandError as error:
        there = sorted(int(each.revision) for each in directory.walk_revisions())
        raise ValueError(
            f"no way from version {version} of a store to {target}; there are: {there}"
        ) from error
    return iter(scripts if target < version else reversed(scripts))


def columns(connection: sa.Connection, table: str) -> set[str]:
    """The names of a table's columns, for a script that looks before it changes."""
    return {column["name"] for column in sa.inspect(connection).get_columns(table)}
