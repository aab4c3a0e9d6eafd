"""Tokens of the API: made once, shown once, kept as a hash.

A token holds 256 random bits, so SHA-256 without salt or stretching is enough: nobody can guess its way to one. The
hashes are compared in constant time, with every one of them, so that an answer's time tells nothing. They lie in the
database beside the intents, and in its backup; where the database cannot be read at the moment, what was read last
still lets its owners ask why.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from appliance.intent import StoreUnavailable
from appliance.records import TokenRecord, insert_token, read_tokens

if TYPE_CHECKING:
    from appliance.intent import IntentStore

log = logging.getLogger(__name__)

PREFIX: Final = "nht_"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", re.ASCII)
MOST: Final = 100  # each request is compared with all of them
_SPELLING: Final = re.compile(r"nht_[A-Za-z0-9_-]{43}", re.ASCII)
_BYTES: Final = 32
_DAY: Final = 86400.0
_USED_EVERY: Final = 60.0  # seconds; a write to the disk for each request would be one too many


class Scope(Enum):
    """What a token may do; who may write may read."""

    READ = "read"
    WRITE = "write"

    def covers(self, needed: Scope) -> bool:
        """Return whether this is enough for what needs `needed`."""
        return self is Scope.WRITE or needed is Scope.READ


class TokenExists(Exception):
    """A token of that name is there already."""


class UnknownToken(KeyError):
    """There is no token of that name."""


class TooManyTokens(Exception):
    """There is no room for another one."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it may be shown. Times in seconds since the epoch; None: never."""

    name: str
    scope: Scope
    created_at: float
    expires_at: float | None = None
    last_used: float | None = None

    def expired(self, now: float) -> bool:
        """Return whether its time is over."""
        return self.expires_at is not None and now >= self.expires_at


class Tokens:
    """The tokens in the database of `store`; for its event loop alone."""

    def __init__(self, store: IntentStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._known: tuple[tuple[bytes, Token], ...] = ()
        self._used: dict[str, float] = {}

    def all(self) -> tuple[Token, ...]:
        """Return every token, by name; raise `StoreUnavailable`."""
        return tuple(token for _, token in self._read())

    def add(self, name: str, scope: Scope, days: float | None = None) -> tuple[Token, str]:
        """Make a token that is good for `days`, for ever without; return it and its text, which is kept nowhere.

        Raises `TokenExists`, `TooManyTokens` or `StoreUnavailable`.
        """
        known = self._read()
        if any(token.name == name for _, token in known):
            raise TokenExists(name)
        if len(known) >= MOST:
            raise TooManyTokens(name)
        text = PREFIX + secrets.token_urlsafe(_BYTES)
        now = self._clock()
        made = Token(name, scope, now, None if days is None else now + days * _DAY)
        with self._store.writing() as db:
            insert_token(db, TokenRecord(name, _digest(text), scope.value, now, made.expires_at, None))
        self._used.pop(name, None)
        self._store.changed()
        return made, text

    def rm(self, name: str) -> None:
        """Forget a token: from now on it opens nothing. Raises `UnknownToken` or `StoreUnavailable`."""
        with self._store.writing() as db:
            if db.execute("DELETE FROM token WHERE name = ?", (name,)).rowcount == 0:
                raise UnknownToken(name)
        self._known = tuple(each for each in self._known if each[1].name != name)
        self._store.changed()

    def find(self, text: str) -> Token | None:
        """Return the token with this text, expired or not, and note that it was used; None where there is none."""
        digest = _digest(text) if _SPELLING.fullmatch(text) else b""
        try:
            known = self._read()
        except StoreUnavailable:
            known = self._known
        found = None
        for theirs, token in known:
            if hmac.compare_digest(theirs, digest):
                found = token
        if found is None:
            return None
        now = self._clock()
        return found if found.expired(now) else self._use(found, now)

    def good(self, token: Token) -> bool:
        """Return whether a token that was found once would still open something: for what goes on for long."""
        held = any((each.name, each.created_at) == (token.name, token.created_at) for _, each in self._known)
        return held and not token.expired(self._clock())

    def _use(self, token: Token, now: float) -> Token:
        """Write down that it was used, at most once a minute; a disk that refuses keeps nobody out."""
        last = max(token.last_used or 0.0, self._used.get(token.name, 0.0))
        if 0 <= now - last < _USED_EVERY:
            return token
        self._used[token.name] = now
        try:
            with self._store.writing() as db:
                db.execute("UPDATE token SET last_used = ? WHERE name = ?", (now, token.name))
        except StoreUnavailable as error:
            log.warning("when token %s was used last could not be written down: %s", token.name, error)
            return token
        return replace(token, last_used=now)

    def _read(self) -> tuple[tuple[bytes, Token], ...]:
        with self._store.reading() as db:
            self._known = tuple((each.digest, _shown(each)) for each in read_tokens(db))
        return self._known


def _shown(record: TokenRecord) -> Token:
    return Token(record.name, Scope(record.scope), record.created_at, record.expires_at, record.last_used)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
