"""A collection on Ray: two nodes, one of which loses its power, and what is refused before.

The experiment itself is `ray_nodes.py`; here it is held to its laws, on a real PostgreSQL.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray_nodes
from databases import schema

pytest.importorskip("ray", reason="no Ray: pip install 'cowest-graph[ray]'")


@pytest.mark.timeout(600)
def test_a_node_that_dies_changes_nothing(tmp_path: Path, postgres: str) -> None:
    log, alone = tmp_path / "log.jsonl", f"sqlite:///{tmp_path}/alone.db"
    with ray_nodes.serving(log, 0.2) as url:
        done = ray_nodes.run(url, log, (alone, schema(postgres)), 24)
    done.check()


@pytest.mark.timeout(600)
def test_what_is_wrong_is_said_as_it_is_here(tmp_path: Path) -> None:
    from trainer.engines import collect_on_ray

    @contextmanager
    def broken() -> Any:
        raise FileNotFoundError("no model in /models/weak")
        yield

    rows, store = ray_nodes.queries(1), f"sqlite:///{tmp_path}/traces.db"
    with ray_nodes.two_nodes():
        with pytest.raises(FileNotFoundError, match="no model in /models/weak"):
            list(collect_on_ray(broken, rows, store=store, workers=1))
        with pytest.raises(ValueError, match="in memory cannot be shared"):
            list(collect_on_ray(broken, rows, store=":memory:", workers=1))
        log = tmp_path / "log.jsonl"
        with ray_nodes.serving(log, 0.0) as url:
            wrong = [{"query": ""}, *rows]
            opened = ray_nodes.opening(url, store)
            found = {each.index: each for each in collect_on_ray(opened, wrong, store=store)}
    assert isinstance(found[0].error, ValueError)
    assert "the query is empty" in str(found[0].error)
    assert found[1].trace is not None
    assert found[1].trace.complete
