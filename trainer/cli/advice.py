"""What an error means to whoever typed the command: one line, what to do, and an exit code.

Knows kinds of errors, endpoints and extras. Knows no verb, and prints nothing.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cowest_graph.failures import failure_kind
from cowest_graph.masking import masked_error

FAILED, WRONG_INPUT = 1, 2

EXTRAS: dict[str, tuple[str, ...]] = {
    "local": ("torch", "transformers", "peft", "accelerate"),
    "train": ("trl", "datasets"),
    "embedded": ("xllamacpp", "gguf"),
    "postgres": ("psycopg",),
    "report": ("matplotlib",),
    "routing": ("sklearn",),
    "studio": ("fastapi", "uvicorn", "jinja2", "multipart"),
    "unsloth": ("unsloth",),
    "agreement": ("nltk", "sklearn"),
}
"""Extra → the modules that it brings."""

_OURS = (ValueError, LookupError, OSError, RuntimeError, ImportError)  # raised with whole sentences
_FILES = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)

_SAID = {
    "auth": "refused the key",
    "not_found": "knows no such model or path",
    "rate_limit": "takes no more requests for now",
    "bad_request": "refused the request",
    "server_error": "failed",
    "timeout": "did not answer in time",
    "connection": "cannot be reached",
    "truncated": "broke off in the middle of its reply",
    "garbled": "sent a reply that cannot be read",
}
_TODO = {
    "auth": "set {env}_API_KEY, or api_key in {section}",
    "not_found": "check model and base_url in {section}",
    "rate_limit": "lower max_concurrency in [collect], raise max_retries in [strong], or wait",
    "bad_request": "check {section}: the endpoint may not know one of its settings",
    "server_error": "look into the server's log, or run again later",
    "timeout": "raise timeout in {section}, or lower max_concurrency in [collect]",
    "connection": "start it, or set base_url in {section}",
    "truncated": "run again; raise max_tokens in {section} if it stays",
    "garbled": "check that base_url in {section} is an OpenAI-compatible API (often …/v1)",
}


@dataclass(frozen=True)
class Endpoint:
    """A configured endpoint: its section of cowest.toml, and where it is."""

    section: str
    base_url: str | None
    model: str


def advice(error: BaseException, endpoints: Iterable[Endpoint] = ()) -> str:
    """One line: what was wrong, what there is, what to do. Secrets are masked.

    Args:
        error: whatever ended the work.
        endpoints: those that the configuration names, to tell whose request failed.
    """
    return masked_error(_told(error, list(endpoints)))


def exit_code(error: BaseException) -> int:
    """2 for wrong usage or input, 1 for work that failed."""
    if _request(error) is not None or _names_a_network(error):
        return FAILED
    wrong = isinstance(error, (ValueError, LookupError, *_FILES)) or _is_usage(error)
    return WRONG_INPUT if wrong else FAILED


def remedy(kind: str, section: str) -> str:
    """What to do about a kind of failure.

    Args:
        kind: as `failure_kind` names it.
        section: of cowest.toml, whose endpoint failed; "[one] or [another]" where it is open.
    """
    first = section[1:].partition("]")[0]
    return _TODO.get(kind, "check {section}").format(section=section, env=f"COWEST_{first.upper()}")


def need(*extras: str) -> None:
    """Check that the modules of these extras are installed, without importing them.

    Raises:
        ImportError: naming the modules that are missing, and the extra to install.
    """
    for extra in extras:
        if missing := [module for module in EXTRAS[extra] if not installed(module)]:
            raise ImportError(_missing(missing, extra))


def installed(module: str) -> bool:
    """Whether a top-level module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _told(error: BaseException, endpoints: list[Endpoint]) -> str:
    if _is_usage(error):
        said = _line(error.format_message())  # type: ignore[attr-defined]
        verb = getattr(getattr(error, "ctx", None), "command_path", None)
        return f"{said.rstrip('.')}; see {verb} --help" if said and verb else said
    if _request(error) is not None:
        return _endpoint_said(error, endpoints)
    if isinstance(error, ImportError) and (extra := _extra(error.name)):
        return _missing([str(error.name).partition(".")[0]], extra)
    if _disk_is_full(error):
        where = getattr(error, "filename", None)
        return (
            f"no space left on the disk{f' for {where}' if where else ''}; free some and run the "
            "same command again, or name a folder elsewhere"
        )
    if (inner := getattr(error, "orig", None)) is not None:
        return _database_said(error, inner)
    if isinstance(error, KeyError) and len(error.args) == 1:
        return _line(str(error.args[0]))
    if isinstance(error, FileExistsError) and os.path.isfile(error.filename or ""):
        return _line(f"{error.filename} is a file, and a folder is wanted")
    if isinstance(error, IsADirectoryError) and error.filename is not None:
        return _line(f"{error.filename} is a folder, and a file is wanted")
    if isinstance(error, OSError) and error.filename is not None:
        return _line(f"{error.filename}: {error.strerror}")
    if isinstance(error, ConnectionError) and endpoints:
        known = ", ".join(f"[{e.section}] {e.base_url or e.model}" for e in endpoints)
        return _line(f"{error}; the endpoints are: {known}; start them, or set their base_url")
    kind = type(error).__name__
    if kind == "TrainingError":  # its last lines are the worker's own
        return str(error)
    text = _line(str(error))
    return text if text and isinstance(error, _OURS) else f"{kind}: {text}" if text else kind


def _disk_is_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in str(error)


def _is_usage(error: BaseException) -> bool:
    return hasattr(error, "format_message")  # click's own, also where typer ships a copy of it


def _request(error: BaseException) -> Any:
    """The HTTP request that failed; None for errors of another kind."""
    try:
        return getattr(error, "request", None)
    except RuntimeError:  # httpx, where none was set
        return None


def _names_a_network(error: BaseException) -> bool:
    return failure_kind(error) in _SAID


def _endpoint_said(error: BaseException, endpoints: list[Endpoint]) -> str:
    kind, status = failure_kind(error), getattr(error, "status_code", None)
    url = urlsplit(str(_request(error).url))
    where = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
    sections = _sections(error, where, endpoints)
    said = _SAID.get(kind, f"failed ({kind})")
    code = f" ({status})" if status else ""
    section = " or ".join(f"[{section}]" for section in sections)
    todo = remedy(kind, section)
    reason = _line(_reason(error))
    return f"{section} {where} {said}{code}{f': {reason}' if reason else ''}; {todo}"


def _sections(error: BaseException, url: str, endpoints: list[Endpoint]) -> list[str]:
    """Whose endpoint this is; told by the model where several share a URL."""
    near = [e for e in endpoints if e.base_url and url.startswith(e.base_url.rstrip("/") + "/")]
    near = near or [e for e in endpoints if e.base_url is None]
    model = _model(error)
    exact = [e for e in near if e.model == model]
    return [e.section for e in exact or near] or ["strong"]


def _model(error: BaseException) -> str | None:
    try:
        return str(json.loads(_request(error).content)["model"])
    except Exception:  # a stream, or another kind of request: not worth a second error
        return None


def _reason(error: BaseException) -> str:
    """What the server itself said, where it said something short."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else body
    said = inner.get("message") if isinstance(inner, dict) else inner
    if isinstance(said, str):
        return masked_error(said)[:200]
    return "" if getattr(error, "status_code", None) else masked_error(error.__cause__ or "")[:200]


def _database_said(error: BaseException, inner: BaseException) -> str:
    stores = [line for line in getattr(error, "detail", []) if line.startswith("trace store")]
    said = _line(masked_error(inner))[:300] or type(inner).__name__
    return f"{stores[0] if stores else 'the trace store'}: {said}; check url in [traces]"


def _extra(module: str | None) -> str | None:
    top = (module or "").partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), None)


def _missing(modules: list[str], extra: str) -> str:
    verb = "is" if len(modules) == 1 else "are"
    return f"{', '.join(modules)} {verb} not installed; run: pip install 'cowest-graph[{extra}]'"


def _line(text: str) -> str:
    return " ".join(text.split())
