"""A store for an older release: its tables as that release knows them.

Knows the way back; the way up is taken when a store is opened.
"""

from __future__ import annotations

from pathlib import Path

from cowest_graph.traces.databases import Database
from cowest_graph.traces.migrations import FIRST, migrate
from cowest_graph.traces.tables import STORE_VERSION, set_version, version_of


def downgrade(url: str | Path, version: int) -> int:
    """Take a store's tables back to an older version, in one transaction; the traces stay.

    Only while nobody has it open: whoever opens it with this release brings it up again.

    Args:
        url: as `TraceStore` takes it.
        version: from `FIRST` on, and not newer than this release's.

    Returns:
        The version that it had.

    Raises:
        ValueError: for a version that there is no way to, or a database that is no store; nothing
            was changed.
    """
    if not FIRST <= version <= STORE_VERSION:
        raise ValueError(
            f"no way to version {version} of a store; there are: {FIRST} to {STORE_VERSION}"
        )
    database = Database(url)
    try:
        with database.transaction(writes=True) as connection:
            had = version_of(connection, database.url)
            if had is None:
                raise ValueError(f"{database.url} holds no traces: there is nothing to take back")
            if version < had:
                migrate(connection, had, version)
                set_version(connection, version)
    finally:
        database.close()
    return had
