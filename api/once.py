"""Idempotency-Key, on every POST: a request that is sent twice is done once, and its second answer is its first.

The answer lies in the database for a day, so it survives the daemon; a key belongs to its caller and to the resource.
Refusals are kept, too, and failures of ours are not: those may be tried again. What is asked is kept as a hash. So is
the key, and the answer is sealed under it: there may be a token in it, which who reads the database must not find.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from cryptography.fernet import Fernet
from fastapi import Depends, Header, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from api.caller import caller_of
from api.problem import MEDIA_TYPE, Problem, Reason, body
from appliance.intent import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.intent import IntentStore

log = logging.getLogger(__name__)

T = TypeVar("T")

_KEPT: Final = 86400.0  # seconds
_MOST: Final = 1000  # answers

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of your choice that nobody guesses, such as a UUID: the same key with the same request, "
        "within a day, has the same answer, and nothing is done twice.",
        examples=["5f0c6c1e-9d0f-4f0b-8a55-1d9d5b2f7a10"],
    ),
]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that may have been made before."""

    request: Request
    response: Response
    key: str | None

    @property
    def status(self) -> int:
        """The status of an answer that is no refusal."""
        return self.response.status_code or self.request.scope["route"].status_code or 200


async def _attempt(request: Request, response: Response, key: Key = None) -> Attempt:
    return Attempt(request, response, key)


Attempted = Annotated[Attempt, Depends(_attempt)]


class Once:
    """The answers to requests with a key, in the database of `store`.

    `blind`: where it cannot be read, go on as if this were the first attempt.
    """

    def __init__(self, store: IntentStore, *, blind: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._blind = blind
        self._clock = clock
        self._under_way: set[str] = set()

    async def do(self, attempt: Attempt, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work; or answer as it was answered when it was asked for with this key before (a `Response`)."""
        if attempt.key is None:
            return await work()
        request = attempt.request
        whose = f"{(await caller_of(request)).name}\n{request.url.path}\n{attempt.key}"
        asked = hashlib.sha256(request.url.query.encode() + b"\n" + await request.body()).digest()
        if (found := self._find(whose, asked)) is not None:
            return found  # type: ignore[no-any-return]  # FastAPI sends it as it is
        if whose in self._under_way:
            raise _refused(409, "idempotency-key-in-use", "a request with this key is under way", "wait for its answer")
        self._under_way.add(whose)
        try:
            made = await work()
        except Problem as problem:
            if problem.document.status < 500:
                self._keep(whose, asked, problem.document.status, body(problem).decode(), problem.headers)
            raise
        else:
            text = TypeAdapter(type(made)).dump_json(made).decode()
            self._keep(whose, asked, attempt.status, text, attempt.response.headers)
            return made
        finally:
            self._under_way.discard(whose)

    def _find(self, whose: str, asked: bytes) -> Any:
        try:
            with self._store.reading() as db:
                since = self._clock() - _KEPT
                query = "SELECT request, status, body FROM answer WHERE key = ? AND at > ?"
                row = db.execute(query, (_digest("name", whose).hex(), since)).fetchone()
        except StoreUnavailable:
            if self._blind:
                return None
            raise
        if row is None:
            return None
        before, status, sealed = row
        if before != asked:
            text = "this Idempotency-Key was used for another request"
            raise _refused(422, "idempotency-key-reused", text, "use a new key for each request")
        headers, text = json.loads(_seal(whose).decrypt(sealed))
        kind = MEDIA_TYPE if status >= 400 else "application/json"
        return Response(text, status, {**headers, "Idempotency-Replayed": "true"}, kind)

    def _keep(self, whose: str, asked: bytes, status: int, text: str, headers: Mapping[str, str]) -> None:
        now = self._clock()
        sealed = _seal(whose).encrypt(json.dumps([dict(headers), text]).encode()).decode()
        values = (_digest("name", whose).hex(), asked, now, status, sealed)
        try:
            with self._store.writing() as db:
                db.execute("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?)", values)
                db.execute("DELETE FROM answer WHERE at <= ?", (now - _KEPT,))
                newest = "SELECT key FROM answer ORDER BY at DESC LIMIT ?"
                db.execute(f"DELETE FROM answer WHERE key NOT IN ({newest})", (_MOST,))  # noqa: S608
        except StoreUnavailable as error:  # what was asked for is done; only a repetition would be done again
            log.warning("an answer could not be kept for its Idempotency-Key: %s", error)


def _digest(purpose: str, whose: str) -> bytes:
    return hashlib.sha256(f"{purpose}\n{whose}".encode()).digest()


def _seal(whose: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(_digest("seal", whose)))


def _refused(status: int, code: str, text: str, step: str) -> Problem:
    return Problem(status, code, text[0].upper() + text[1:], reasons=[Reason(code, text, step)])
