"""/v1/restore: what an operator does when the database is lost."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from pydantic.dataclasses import dataclass

from api.caller import Who
from api.once import Attempted, Once
from api.parts import Parts
from api.problem import Problem, Reason, responses
from api.schema import SHOWN
from appliance import backup
from appliance.intent import StoreReadable


@dataclass(frozen=True, slots=True, config=SHOWN)
class Restored:
    """What was restored. Tokens open again what they did; see whether one came back that was taken away."""

    cidrs: int
    """How many CIDRs were in the backup."""
    tokens: int
    """How many tokens were in the backup, as hashes."""
    saved_at: float
    """When the backup was written, in seconds since the epoch."""
    damaged: str
    """Where the damaged database is now; empty where there was none."""


def router(parts: Parts) -> APIRouter:
    """Return the endpoint."""
    routes = APIRouter(tags=["upkeep"])

    once = Once(parts.store, blind=True)

    @routes.post("/v1/restore", responses=responses(409, 503))
    async def restore(who: Who, attempt: Attempted) -> Restored:
        """Put the last good backup in the place of a database that cannot be read; refused where it can."""
        return await once.do(attempt, partial(_restore, parts, who))

    return routes


async def _restore(parts: Parts, who: str) -> Restored:
    try:
        saved = backup.load(parts.store.path)
        aside = parts.store.restore(saved, who=who)
    except backup.BadBackup as error:
        reason = Reason("no-backup", str(error), "add the CIDRs again, after moving the damaged database away")
        raise Problem(409, "no-backup", "There is no good backup", reasons=[reason]) from None
    except StoreReadable as error:
        reason = Reason("store-readable", str(error), "nothing; a restore would lose the latest changes")
        raise Problem(409, "store-readable", "Nothing to restore", reasons=[reason]) from None
    return Restored(len(saved.intents), len(saved.tokens), saved.at, "" if aside is None else str(aside))
