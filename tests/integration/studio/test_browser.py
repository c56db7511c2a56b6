"""The page in a real browser, served by the real verb: the five views, buttons, and no script.

Chromium is Debian's (`apt-get install chromium`) or Playwright's own (`playwright install
chromium`); without one the tests are skipped and say so.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from folders import write_adapter

from cowest_graph import AdapterRegistry, Trace, TraceStore
from cowest_graph.traces import wrong_pairs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def _browser_program() -> str | None:
    return next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as driver:
        try:
            started = driver.chromium.launch(
                executable_path=_browser_program(), args=["--no-sandbox"]
            )
        except Error as error:
            pytest.skip(f"no browser: apt-get install chromium ({str(error).splitlines()[0]})")
        yield started
        started.close()


def evil_trace(number: int) -> Trace:
    attempts = [
        {"index": n, "draft": f"{n} {EVIL}", "answer": EVIL, "score": 1.0 - n} for n in (0, 1)
    ]
    return Trace.model_validate(
        {"query": f"{number} {EVIL}", "domain": EVIL, "thread_id": EVIL, "num_drafts": 2}
        | {"solo": EVIL, "solo_score": 0.5, "attempts": attempts, "user": EVIL}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two traces full of markup and two versions; models by scripted classes of its own."""
    adapters = AdapterRegistry(tmp_path / "adapters")
    for number in (1, 2):
        adapters.add(write_adapter(tmp_path / f"source{number}"))
    adapters.promote("v0001")
    with TraceStore(tmp_path / "traces.db") as traces:
        for number in range(2):
            traces.record(evil_trace(number))
    (tmp_path / "models.py").write_text(
        "from langchain_core.language_models import FakeListChatModel\n"
        "weak = FakeListChatModel(responses=['a <b>draft</b>'])\n"
        "strong = FakeListChatModel(responses=['an <i>answer</i>'])\n"
    )
    (tmp_path / "cowest.toml").write_text(
        '[weak]\nmodel = "models:weak"\n[strong]\nmodel = "models:strong"\n'
    )
    return tmp_path


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """What `cowest studio` prints."""
    cowest = Path(sys.executable).with_name("cowest")
    server = subprocess.Popen(
        [str(cowest), "studio", "--port", "0", "--config", "cowest.toml"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    line = server.stdout.readline().strip()
    assert line.startswith("http://127.0.0.1:"), server.stderr and server.stderr.read()
    yield line
    server.send_signal(signal.SIGINT)
    _, said = server.communicate(timeout=20)
    assert server.returncode == 130, said
    assert "Traceback" not in said


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, opened by its address; what a script did or the console said fails the test."""
    context = browser.new_context()
    opened = context.new_page()
    said: list[str] = []
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
    opened.goto(address)
    yield opened
    assert said == []
    context.close()


def goto(page: Page, path: str) -> None:
    at = urlsplit(page.url)
    page.goto(f"{at.scheme}://{at.netloc}{path}")


def test_without_the_token_the_browser_is_refused(browser: Browser, address: str) -> None:
    context = browser.new_context()
    answer = context.new_page().goto(address.partition("?")[0])
    assert answer is not None
    assert answer.status == 401
    context.close()


def test_the_views_show_markup_as_text(page: Page) -> None:
    assert "token" not in page.url
    assert page.locator("#traces tbody tr").count() == 2
    page.locator("#traces tbody a").first.click()
    page.locator("#query").wait_for()
    assert EVIL in page.locator("#query").inner_text()
    for view in ("/", "/pairs", "/versions", "/versions/v0001", "/play"):
        goto(page, view)
        page.locator("h1").wait_for()
        assert page.title().endswith("cowest studio"), view  # no script has run
        assert page.locator("main img").count() == 0


def test_filters_and_a_thread_of_markup(page: Page) -> None:
    page.fill("input[name=text]", "1 <script>")
    page.click("button:has-text('Filter')")
    page.wait_for_url(re.compile("text="))
    assert page.locator("#traces tbody tr").count() == 1
    page.locator("#traces tbody a").click()
    page.click(".facts a >> nth=0")
    page.wait_for_url(re.compile("thread_id="))
    assert page.locator("#traces tbody tr").count() == 2


def test_a_pair_is_marked_and_an_answer_edited(page: Page, folder: Path) -> None:
    goto(page, "/pairs")
    pair = page.locator(".pair").first
    pair.locator("button:has-text('Wrong pair')").click()
    pair.locator("text=marked wrong").wait_for()
    pair.locator("textarea").fill(EVIL)
    pair.locator("button:has-text('Edit answer')").click()
    pair.locator("text=kept as feedback").wait_for()
    with TraceStore(folder / "traces.db") as traces:
        assert len(wrong_pairs(traces.feedbacks(key="pair"))) == 1
        assert [each.correction for each in traces.feedbacks(key="correction")] == [EVIL]
    goto(page, "/pairs")
    assert page.locator(".pair textarea").first.input_value() == EVIL


def test_promotion_wants_a_second_click(page: Page, folder: Path) -> None:
    adapters = AdapterRegistry(folder / "adapters")
    goto(page, "/versions")
    page.locator("tr:has-text('v0002') >> button").click()
    page.locator(".confirm").wait_for()
    assert adapters.current == "v0001"
    page.click(".confirm button")
    page.locator("tr.current:has-text('v0002')").wait_for()
    assert adapters.current == "v0002"
    page.locator("tr.current >> button").click()
    page.click(".confirm button")
    page.locator("tr.current:has-text('v0001')").wait_for()
    assert adapters.current == "v0001"


def test_the_playground_streams_text(page: Page, folder: Path) -> None:
    goto(page, "/play")
    page.fill("textarea", "How many?")
    page.click("button:has-text('Ask')")
    page.locator("#both", has_text="an <i>answer</i>").wait_for(timeout=60_000)
    page.locator("#strong", has_text="an <i>answer</i>").wait_for()
    assert page.locator("#weak").inner_text() == "a <b>draft</b>"
    with TraceStore(folder / "traces.db") as traces:
        assert len(traces) == 2  # nothing of it is recorded


def test_a_port_that_is_taken_and_a_host_of_others(address: str, folder: Path) -> None:
    cowest = Path(sys.executable).with_name("cowest")
    port = str(urlsplit(address).port)
    for options, code, said in (
        (["--port", port], 1, f"port {port} of 127.0.0.1 is taken; give --port, or 0"),
        (["--host", "0.0.0.0"], 2, "give --allow-remote"),
    ):
        done = subprocess.run(
            [str(cowest), "studio", *options],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code
        assert said in done.stderr
        assert "Traceback" not in done.stderr
