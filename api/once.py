"""Idempotency-Key: a request that is sent twice is done once, and its second answer is its first.

The answer lies in the database for a day, so it survives the daemon; a key belongs to its caller and to the resource.
Refusals are kept, too, and failures of ours are not: those may be tried again. What is asked is kept as a hash.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Header, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from api.caller import caller_of
from api.problem import MEDIA_TYPE, Problem, Reason, body
from appliance.intent import StoreUnavailable

if TYPE_CHECKING:
    from appliance.intent import IntentStore

log = logging.getLogger(__name__)

_KEPT: Final = 86400.0  # seconds
_MOST: Final = 1000  # answers

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of your choice, such as a UUID: the same key with the same request, within a day, has "
        "the same answer, and nothing is done twice.",
        examples=["5f0c6c1e-9d0f-4f0b-8a55-1d9d5b2f7a10"],
    ),
]


class Once:
    """The answers to requests with a key, in the database of `store`."""

    def __init__(self, store: IntentStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._under_way: set[str] = set()

    async def do(
        self, request: Request, response: Response, key: str | None, work: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Do the work, or return what it returned when it was asked for with this key before."""
        if key is None:
            return await work()
        whose = f"{(await caller_of(request)).name}\n{request.url.path}\n{key}"
        asked = hashlib.sha256(request.url.query.encode() + b"\n" + await request.body()).digest()
        if (found := self._find(whose, asked)) is not None:
            return found
        if whose in self._under_way:
            raise _refused(409, "idempotency-key-in-use", "a request with this key is under way", "wait for its answer")
        self._under_way.add(whose)
        try:
            made = await work()
        except Problem as problem:
            if problem.document.status < 500:
                self._keep(whose, asked, problem.document.status, body(problem).decode())
            raise
        else:
            text = TypeAdapter(type(made)).dump_json(made).decode()
            self._keep(whose, asked, response.status_code or 201, text)
            return made
        finally:
            self._under_way.discard(whose)

    def _find(self, key: str, asked: bytes) -> Response | None:
        with self._store.reading() as db:
            since = self._clock() - _KEPT
            row = db.execute(
                "SELECT request, status, body FROM answer WHERE key = ? AND at > ?", (key, since)
            ).fetchone()
        if row is None:
            return None
        if row[0] != asked:
            text = "this Idempotency-Key was used for another request"
            raise _refused(422, "idempotency-key-reused", text, "use a new key for each request")
        kind = MEDIA_TYPE if row[1] >= 400 else "application/json"
        return Response(row[2], row[1], {"Idempotency-Replayed": "true"}, kind)

    def _keep(self, key: str, asked: bytes, status: int, text: str) -> None:
        now = self._clock()
        try:
            with self._store.writing() as db:
                db.execute("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?)", (key, asked, now, status, text))
                db.execute("DELETE FROM answer WHERE at <= ?", (now - _KEPT,))
                newest = "SELECT key FROM answer ORDER BY at DESC LIMIT ?"
                db.execute(f"DELETE FROM answer WHERE key NOT IN ({newest})", (_MOST,))  # noqa: S608
        except StoreUnavailable as error:  # what was asked for is done; only a repetition would be done again
            log.warning("an answer could not be kept for its Idempotency-Key: %s", error)


def _refused(status: int, code: str, text: str, step: str) -> Problem:
    return Problem(status, code, text[0].upper() + text[1:], reasons=[Reason(code, text, step)])
