"""A real PostgreSQL of one's own in a folder, on a Unix socket, as `pgserver` brings it.

Knows programs and users. Knows no store.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres(folder: Path, *settings: str) -> Iterator[str]:
    """The URL of a server that is stopped at the end; its data stay in the folder.

    Args:
        folder: short, for a socket's path has at most 107 bytes; begun anew where it is empty.
        settings: of the server, such as `shared_buffers=1GB`.
    """
    found = importlib.util.find_spec("pgserver")
    if found is None or found.origin is None:
        raise ImportError("no PostgreSQL: pip install pgserver 'psycopg[binary]'")
    package = Path(found.origin).parent
    folder.mkdir(parents=True, exist_ok=True)
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    if user and not (folder / package.name).exists():
        for name in (package.name, f"{package.name}.libs"):  # which nobody can read
            shutil.copytree(package.parent / name, folder / name)
        shutil.chown(folder, user)
    programs = (folder / package.name if user else package) / "pginstall" / "bin"
    data = str(folder / "data")

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", data, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, user=user)

    if not Path(data).exists():
        run("initdb", "-U", "postgres", "--auth=trust", "--encoding=utf8")
    told = " ".join(f"-c {setting}" for setting in settings)
    run("pg_ctl", "-w", "-l", f"{data}.log", "-o", f"-h '' -k {folder} {told}", "start")
    try:
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-w", "-m", "fast", "stop")
