"""The page as a web application: routes over listing, pairing, versions and playing.

Knows addresses, forms and templates. Knows no SQL and no model. FastAPI reads the addresses, Jinja2
escapes whatever is stored, HTMX swaps parts of a page: three well-kept libraries without a build
step. Gradio, which has the widgets ready, pages its tables in the browser.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from sqlalchemy.exc import SQLAlchemyError

from cowest_graph.adapters import BASE
from cowest_graph.masking import masked_error
from trainer.studio import listing, pairing, versions
from trainer.studio.guard import LOOPBACK, Guard
from trainer.studio.playing import Playground
from trainer.studio.source import Source

_HERE = Path(__file__).parent


def create_app(source: Source, token: str, *, hosts: tuple[str, ...] | None = LOOPBACK) -> FastAPI:
    """The application; whoever has the token sees everything and may promote.

    Args:
        source: what is shown.
        token: as the address carries it once.
        hosts: names that it answers to; None is any.
    """
    app = FastAPI(title="cowest studio", docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(Guard(token, hosts))
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.add_exception_handler(LookupError, partial(_failed, 404))
    app.add_exception_handler(ValueError, partial(_failed, 400))
    for broken in (OSError, SQLAlchemyError):  # a disk that is full, a database that is gone
        app.add_exception_handler(broken, partial(_failed, 503))
    _add_traces(app, source)
    _add_pairs(app, source)
    _add_versions(app, source)
    _add_playground(app, source)
    return app


def _templates() -> Jinja2Templates:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["signed"] = lambda value: "" if value is None else f"{value:+.3g}"
    environment.globals["BASE"] = BASE
    return Jinja2Templates(env=environment)


def _number(value: float | None) -> str:
    """Missing is empty, never 0."""
    return "" if value is None else f"{value:.3g}"


TEMPLATES = _templates()


def _shown(request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    return TEMPLATES.TemplateResponse(request, template, values, status_code=status)


def _failed(status: int, request: Request, error: Exception) -> Response:
    """An error as a page, or as a line within one."""
    own = isinstance(error, LookupError | ValueError) and error.args
    said = masked_error(error.args[0] if own else f"nothing was changed: {error}")
    part = request.headers.get("hx-request") == "true"
    return _shown(request, "said.html" if part else "failed.html", status, said=said, bad=True)


def _add_traces(app: FastAPI, source: Source) -> None:
    @app.get("/")
    def traces(request: Request, after: str | None = None) -> HTMLResponse:
        """The table."""
        given = {n: request.query_params.get(n, "") for n in listing.FILTERS}
        found = listing.page(source.traces, given, after)
        return _shown(
            request,
            "traces.html",
            rows=[listing.row(trace) for trace in found.traces],
            after=found.after,
            first=after is None,
            filters=listing.FILTERS,
            given=given,
            domains=listing.domains(source.traces),
            total=len(source.traces),
        )

    @app.get("/traces/{key}")
    def trace(request: Request, key: str) -> HTMLResponse:
        """One trace."""
        found = pairing.there(source.traces, key)
        return _shown(
            request,
            "trace.html",
            trace=found,
            attempts=listing.attempts(found),
            calls=listing.calls(found),
            bill=listing.bill(found, source.prices),
            feedback=source.traces.feedbacks(trace_key=key),
        )

    @app.get("/traces/{key}/json")
    def as_json(key: str) -> JSONResponse:
        """One trace, as it is stored."""
        found = pairing.there(source.traces, key)
        name = f'attachment; filename="{found.key[:16]}.json"'
        shown = json.loads(found.model_dump_json())
        return JSONResponse(shown, headers={"Content-Disposition": name})


def _add_pairs(app: FastAPI, source: Source) -> None:
    @app.get("/pairs")
    def pairs(request: Request, after: str | None = None) -> HTMLResponse:
        """Chosen beside rejected."""
        names = ("text", "domain", "weak_version")
        given = {n: request.query_params.get(n, "") for n in names}
        found = pairing.page(source.traces, given, after)
        return _shown(
            request,
            "pairs.html",
            pairs=found.pairs,
            after=found.after,
            first=after is None,
            looked_at=found.looked_at,
            filters={n: listing.FILTERS[n] for n in names},
            given=given,
            domains=listing.domains(source.traces),
        )

    @app.post("/pairs/{key}/{chosen}/{rejected}")
    def mark(
        request: Request,
        key: str,
        chosen: int,
        rejected: int,
        wrong: Annotated[bool, Form()],
    ) -> HTMLResponse:
        """Mark a pair as wrong, or no longer."""
        pairing.mark(source.traces, key, chosen, rejected, wrong=wrong)
        values = {"key": key, "chosen": chosen, "rejected": rejected, "wrong": wrong}
        return _shown(request, "marked.html", **values)

    @app.post("/traces/{key}/correction")
    def correct(request: Request, key: str, correction: Annotated[str, Form()]) -> HTMLResponse:
        """Keep what the answer should have been."""
        pairing.correct(source.traces, key, correction)
        return _shown(request, "said.html", said="kept as feedback", bad=False)


def _add_versions(app: FastAPI, source: Source) -> None:
    def page(request: Request, status: int = 200, said: str | None = None) -> HTMLResponse:
        return _shown(
            request,
            "versions.html",
            status,
            said=said,
            rows=versions.listed(source),
            damage=source.adapters.damage(),
            verdicts=versions.verdicts(source.loop),
            history=list(reversed(source.adapters.history()))[:20],
        )

    @app.get("/versions")
    def all_of_them(request: Request) -> HTMLResponse:
        """The versions, and which is in use."""
        return page(request)

    @app.get("/versions/{name}")
    def one(request: Request, name: str) -> HTMLResponse:
        """A version's card, gain by day and curve."""
        known = name in source.adapters
        if not known and name != BASE:
            raise LookupError(f"there is no version {name!r}")
        curve = versions.curve(source.adapters, name) if known else []
        gains = versions.gains(source.traces, name)
        return _shown(
            request,
            "version.html",
            name=name,
            card=json.dumps(source.adapters.card(name), indent=1) if known else "",
            gains=gains,
            gain_line=versions.line_of([(float(n), g[1]) for n, g in enumerate(gains)]),
            curve=curve,
            curve_line=versions.line_of(curve),
        )

    @app.get("/versions/{name}/confirm")
    def confirm(request: Request, name: str, action: str) -> HTMLResponse:
        """What a button would do, before it does."""
        current = source.adapters.current or BASE
        return _shown(request, "confirm.html", name=name, action=action, current=current)

    @app.post("/versions/{name}")
    def move(
        request: Request,
        name: str,
        action: Annotated[str, Form()],
        current: Annotated[str, Form()],
    ) -> Response:
        """Promote a version or roll back, unless the choice has moved since it was asked."""
        now = source.adapters.current or BASE
        if now != current:
            return page(request, 409, f"nothing was done: {now} is in use by now, not {current}")
        if action == "rollback":
            source.adapters.rollback()
        elif action == "promote":
            if name != BASE:
                source.check(name)
            source.adapters.promote(name)
        else:
            raise ValueError(f"there is no action {action!r}; there are: promote, rollback")
        return RedirectResponse("/versions", 303)


def _add_playground(app: FastAPI, source: Source) -> None:
    opened = _Once(source.playground)
    app.router.on_shutdown.append(opened.close)

    @app.get("/play")
    def play(request: Request) -> HTMLResponse:
        """The playground."""
        return _shown(request, "play.html", possible=source.playground is not None)

    @app.post("/play")
    async def ask(query: Annotated[str, Form()]) -> StreamingResponse:
        """What weak, strong and both say: one JSON object a line, as it comes."""
        if not query.strip():
            raise ValueError("the question is empty")
        playground = await opened()
        lines = _lines(playground.ask(query.strip()))
        return StreamingResponse(lines, media_type="application/x-ndjson")


async def _lines(said: AsyncIterator[dict[str, str]]) -> AsyncIterator[str]:
    async for each in said:
        yield json.dumps(each) + "\n"


class _Once:
    """The playground, opened by whoever asks first."""

    def __init__(self, make: Callable[[], Playground] | None) -> None:
        self._make, self._lock = make, asyncio.Lock()
        self._made: Playground | None = None

    async def __call__(self) -> Playground:
        if self._make is None:
            raise ValueError("this page was started without models to ask")
        async with self._lock:
            if self._made is None:
                self._made = await run_in_threadpool(self._make)
            return self._made

    def close(self) -> None:
        """Give the models back."""
        if self._made is not None:
            self._made.close()
            self._made = None
