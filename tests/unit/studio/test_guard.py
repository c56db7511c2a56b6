"""Who may see the page, and what a foreign page can do."""

import pytest
from fastapi.testclient import TestClient

from trainer.studio import Source, serve
from trainer.studio.guard import COOKIE

PAGES = ["/", "/pairs", "/versions", "/versions/v0001", "/play", "/traces/x", "/static/studio.css"]


@pytest.mark.parametrize("page", PAGES)
def test_without_the_token_every_page_is_401(stranger: TestClient, page: str) -> None:
    assert stranger.get(page).status_code == 401


@pytest.mark.parametrize("token", ["", "the-toke", "the-token2", "é"])
def test_a_wrong_token_is_401_whatever_cookie_there_is(client: TestClient, token: str) -> None:
    answer = client.get("/", params={"token": token})
    assert answer.status_code == 401
    assert "token is wrong" in answer.text


def test_the_token_leaves_the_address_at_once(stranger: TestClient) -> None:
    answer = stranger.get("/?token=the-token&domain=a%26b", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?domain=a%26b")
    cookie = answer.headers["set-cookie"]
    assert COOKIE in cookie
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "192.168.0.7:8421"])
def test_a_name_that_points_here_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8421", "127.0.0.1:9", "[::1]:8421"])
def test_loopback_is_answered_by_each_of_its_names(client: TestClient, host: str) -> None:
    client.headers["Cookie"] = f"{COOKIE}=the-token"
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_a_page_of_another_site_changes_nothing(client: TestClient, source: Source) -> None:
    form = {"action": "promote", "current": "v0001"}
    for origin in ("http://evil.example", "null"):
        answer = client.post("/versions/v0002", data=form, headers={"Origin": origin})
        assert answer.status_code == 403
    assert source.adapters.current == "v0001"
    own = {"Origin": "http://127.0.0.1:8421"}
    assert client.post("/versions/v0002", data=form, headers=own).status_code == 200
    assert source.adapters.current == "v0002"


def test_no_page_lets_a_script_in(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_other_machines_are_let_in_only_when_asked(source: Source, host: str) -> None:
    with pytest.raises(ValueError, match="--allow-remote"):
        serve(source, host=host, port=0)
