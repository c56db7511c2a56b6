"""The wheel that a user installs: nothing is missing in it, and it runs on the core dependencies.

Offline: built by what is installed, and run with links to the installed core dependencies, and
theirs, in the place of a new environment. What is not among them (torch, trl) is not there.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "cowest_graph", "trainer", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip(f"what belongs into the wheel is told by git: {listed.stderr.strip()}")
    return listed.stdout.splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git has, in a folder of its own; any warning is an error."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("out")
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    quiet = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, tree],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=quiet,  # setuptools would warn that it compiles nothing
    )
    said = built.stdout + built.stderr
    assert built.returncode == 0, said
    assert not re.search(r"warning|deprecat|!!", said, re.IGNORECASE), said
    (found,) = out.glob("*.whl")
    return found


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packaged = [name for name in tracked() if name.startswith(("cowest_graph/", "trainer/"))]
    assert {name for name in names if ".dist-info/" not in name} == set(packaged)
    assert any(name.endswith("accelerate_configs/fsdp.yaml") for name in names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_an_index_takes_its_metadata(wheel: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", wheel],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    metadata = zipfile.ZipFile(wheel).read(f"{wheel.name.rsplit('-', 3)[0]}.dist-info/METADATA")
    for field in (b"License-Expression: Apache-2.0", b"Author:", b"Keywords:", b"Classifier:"):
        assert field in metadata


def needed(names: Iterator[str] | list[str], known: dict[str, Path]) -> dict[str, Path]:
    """The installed distributions that these need, and theirs, with where their files are."""
    for text in names:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in known:
            continue
        found = importlib.metadata.distribution(name)
        known[name] = Path(str(found.locate_file("")))
        needed(found.requires or [], known)
    return known


def test_the_readme_s_lines_run_on_the_core_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    core = tmp_path / "core"
    core.mkdir()
    metadata = next((tmp_path / "installed").glob("*.dist-info"))
    required = importlib.metadata.Distribution.at(metadata).requires or []
    for name, place in needed(required, {}).items():
        for file in importlib.metadata.distribution(name).files or []:
            top = file.parts[0]
            if top != ".." and not (core / top).exists():
                (core / top).symlink_to(place / top)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ((code, expected),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", readme, re.S)
    heavy = "assert not {'torch', 'transformers', 'trl', 'peft', 'datasets'} & sys.modules.keys()"
    path = [str(tmp_path / "installed"), str(core)]
    program = f"import sys\nsys.path += {path!r}\n{code}\n{heavy}\nimport trainer.cli\n{heavy}"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == expected
    missing = f"import sys\nsys.path += {path!r}\nimport torch"
    without = subprocess.run([sys.executable, "-I", "-S", "-c", missing], capture_output=True)
    assert b"No module named 'torch'" in without.stderr
