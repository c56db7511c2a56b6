"""Promote and roll back: what was confirmed is what happens, or nothing does."""

import json

from fastapi.testclient import TestClient

from trainer.studio import Source


def test_promote_and_roll_back(client: TestClient, source: Source) -> None:
    confirm = client.get("/versions/v0002/confirm?action=promote").text
    assert "instead of <b>v0001</b>" in confirm
    assert source.adapters.current == "v0001"  # nothing yet
    client.post("/versions/v0002", data={"action": "promote", "current": "v0001"})
    assert source.adapters.current == "v0002"
    client.post("/versions/v0002", data={"action": "rollback", "current": "v0002"})
    assert source.adapters.current == "v0001"
    client.post("/versions/base", data={"action": "promote", "current": "v0001"})
    assert source.adapters.current is None


def test_nothing_is_done_when_the_choice_has_moved(client: TestClient, source: Source) -> None:
    source.adapters.promote("v0002")  # by somebody else, since the page was loaded
    answer = client.post("/versions/v0001", data={"action": "rollback", "current": "v0001"})
    assert answer.status_code == 409
    assert "nothing was done: v0002 is in use by now, not v0001" in answer.text
    assert source.adapters.current == "v0002"


def test_a_version_that_is_gone_or_an_action_that_is_none(
    client: TestClient, source: Source
) -> None:
    gone = client.post("/versions/v9", data={"action": "promote", "current": "v0001"})
    assert gone.status_code == 404
    none = client.post("/versions/v0002", data={"action": "delete", "current": "v0001"})
    assert none.status_code == 400
    assert client.get("/versions/v9").status_code == 404
    assert source.adapters.current == "v0001"


def test_the_page_tells_verdicts_and_curves(client: TestClient, source: Source) -> None:
    assert "No loop was run here" in client.get("/versions").text
    difference = {"mean": 0.2, "low": 0.1, "high": 0.3}
    verdict = {"queries": 150, "candidate": 0.8, "current": 0.6, "difference": difference}
    found = {"number": 1, "candidate": "v0002", "current": "v0001", "note": ""}
    found["verdict"] = {**verdict, "p": 0.001, "passed": True, "missing": 0}
    assert source.loop is not None
    source.loop.mkdir()
    (source.loop / "loop.json").write_text(json.dumps({"rounds": [found]}))
    text = client.get("/versions").text
    assert "+0.2 [+0.1, +0.3]" in text
    assert "passed" in text
    steps = [{"step": n, "loss": 1.0 / n} for n in range(1, 5)]
    lines = "\n".join(map(json.dumps, [{"note": "begins"}, *steps]))
    (source.adapters.path("v0002") / "log.jsonl").write_text(lines + '\n{"step": 5, "lo')
    assert "loss 1 to 0.25 in 4 steps" in client.get("/versions/v0002").text
    assert "Its log is not here" in client.get("/versions/v0001").text
