"""Secrets of this process, and texts without them.

Knows what is secret (keys, passwords, tokens: of chat models, URLs and the environment) and in
which forms it may turn up in a text. Knows no sink: whoever keeps, prints or cuts a text masks it
first, for half a key is not recognised any more. What else a team wants out of its texts is for
`redaction`; its hooks are told here, so that an error says nothing that a store would not keep.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from pydantic import BaseModel, SecretStr

MASK = "***"
_SHORTEST = 8  # what is shorter is no secret, and may well be a word of the text ("none", "EMPTY")
_DEPTH = 8  # of chains in chains, whose models are looked at
_NAMED = re.compile(
    r"(api[_-]?key|access[_-]?key|auth[_-]?key|token|secret|passw(or)?d|passphrase|authorization"
    r"|signature|credential)s?$",
    re.IGNORECASE,
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)
_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://[^\s/:@\"']*:)[^\s/\"']*@", re.IGNORECASE)
_TOKENS = re.compile(
    r"\b(sk|pk|rk|ghp|gho|hf|xox[abp]|lsv2)([-_])[A-Za-z0-9_-]{16,}"
    r"|\b(Bearer|Basic)( +|%20)[A-Za-z0-9._~+/=-]{8,}"
)

_known: set[str] = set()
_pattern: re.Pattern[str] | None = None
_hooks: list[Callable[[str], str]] = []
_lock = threading.Lock()

_Data = TypeVar("_Data")


def learn(*secrets: str | SecretStr | None) -> None:
    """Let `masked` know of secrets; what has fewer than eight characters is none.

    Args:
        secrets: as they are; None is passed over.
    """
    global _pattern
    plain = [s.get_secret_value() if isinstance(s, SecretStr) else s or "" for s in secrets]
    forms = {form for secret in plain if len(secret) >= _SHORTEST for form in _forms(secret)}
    with _lock:
        if forms <= _known:
            return
        _known.update(forms)
        longest_first = sorted(_known, key=len, reverse=True)
        _pattern = re.compile("|".join(map(re.escape, longest_first)))


def learn_url(url: str) -> None:
    """The password, and the tokens of the query, that a URL holds.

    Args:
        url: of an endpoint, a proxy or a database; a password may hold an `@` that is not encoded.
    """
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # An unencoded "/" ends the authority for a parser, though it may stand in the password.
    for part in (authority, rest):
        userinfo = part.rpartition("@")[0]
        user, colon, password = userinfo.partition(":")
        if not colon and not scheme.startswith("http"):
            continue  # the user of a database is no secret
        secret = password if colon else user
        pieces = [piece for piece in re.split("[@/]", secret) if piece != secret]
        learn(secret, *pieces, _basic(user, password) if colon else None)
        learn(_basic(unquote(user), unquote(password)) if colon else None)
    try:
        query = urlsplit(url).query
    except ValueError:
        return
    learn(*(value for name, value in parse_qsl(query) if _NAMED.search(name)))


def learn_environment(environment: Mapping[str, str] | None = None) -> None:
    """Keys, tokens and passwords by the names of their variables, and those within URLs."""
    for name, value in (os.environ if environment is None else environment).items():
        if _NAMED.search(name):
            learn(value)
        elif "://" in value:
            learn_url(value)


def learn_from(model: Any) -> None:
    """The secrets that a chat model, or a chain of them, was made with.

    Args:
        model: its secret fields, the headers and the URLs among its fields, and those of what it is
            bound to or made of.
    """
    _look(model, "", _DEPTH)
    learn_environment()


def masked(text: str) -> str:
    """The text with every known secret as ***, in whatever form it stands there.

    >>> learn("sk-12345678")
    >>> masked("Incorrect API key: sk-12345678")
    'Incorrect API key: ***'
    """
    return text if _pattern is None else _pattern.sub(MASK, text)


def masked_error(error: BaseException | str) -> str:
    """What an error says, without known secrets, passwords in URLs, and what looks like a key.

    An error is no content: here a sentence may lose a word, which a model's answer must not. While
    a store that redacts is open, its hook is asked, too; where that fails, nothing is said.
    """
    text = _USERINFO.sub(rf"\1{MASK}@", masked(str(error)))
    return _hooked(_TOKENS.sub(_without_token, text))


def masked_beside(text: str) -> str:
    """A text of traffic as it may go elsewhere than to a store, to a span for one.

    Known secrets are masked, and while a store that redacts is open, its hook is asked, too.
    """
    return _hooked(masked(text))


def _hooked(text: str) -> str:
    try:
        for hook in tuple(_hooks):
            text = hook(text)
    except Exception:
        return f"{MASK} (what it says could not be redacted)"
    return text


def ask_in_errors(hook: Callable[[str], str]) -> None:
    """Let `masked_error` and `masked_beside` ask a hook, too, until `ask_no_more`."""
    with _lock:
        _hooks.append(hook)


def ask_no_more(hook: Callable[[str], str]) -> None:
    """End what `ask_in_errors` began, once; a hook that is not asked is passed over."""
    with _lock:
        if hook in _hooks:
            _hooks.remove(hook)


def masked_data(data: _Data) -> _Data:
    """Plain data (dicts, lists, texts, numbers) with every text masked; itself where none is."""
    if _pattern is None:
        return data
    return cast(_Data, _clean(data))


def _clean(data: Any) -> Any:
    match data:
        case str():
            return masked(data)
        case dict():
            return {_clean(key): _clean(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(_clean(each) for each in data)
    return data


def _without_token(found: re.Match[str]) -> str:
    kind, space = found[1] or found[3], found[2] or found[4]
    return f"{kind}{space}{MASK}"


def _forms(secret: str) -> Iterator[str]:
    """A secret as it may stand in a URL, in JSON, in HTML, in Python's repr, and in base64."""
    yield secret
    yield from (quote(secret, safe=""), quote(secret), quote_plus(secret), unquote(secret))
    yield quote(secret, safe="").replace("%", "%25")
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield json.dumps(json.dumps(secret))[3:-3]
    yield from (html.escape(secret), html.escape(secret, quote=False), repr(secret)[1:-1])
    for text in (secret, f"{secret}:", f":{secret}"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(text.encode("utf-8", "surrogatepass")).decode()
            yield from (encoded, encoded.rstrip("="))


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def _look(thing: Any, name: str, depth: int) -> None:
    """Learn what a field of this name and value holds."""
    match thing:
        case None | bool() | int() | float():
            return
        case SecretStr():
            learn(thing)
        case str() if _NAMED.search(name):
            learn(thing, thing.partition(" ")[2])  # "Bearer KEY"
        case str() if "://" in thing:
            for url in _URL.findall(thing):
                learn_url(url)
        case _ if depth == 0:
            return
        case Mapping():
            for key, value in thing.items():
                _look(value, str(key), depth - 1)
        case BaseModel():
            for key in type(thing).model_fields:
                _look(getattr(thing, key, None), key, depth - 1)
        case Sequence() if not isinstance(thing, (str, bytes)):
            for each in thing:
                _look(each, name, depth - 1)
