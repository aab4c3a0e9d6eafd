"""/v1/restore: what an operator does when the database is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from pydantic.dataclasses import dataclass

from api.problem import Problem, Reason, responses
from appliance import backup
from appliance.intent import StoreReadable

if TYPE_CHECKING:
    from api.parts import Parts


@dataclass(frozen=True, slots=True)
class Restored:
    """The body of POST /v1/restore. `saved_at`: seconds since the epoch; `damaged`: where the old database is now."""

    cidrs: int
    saved_at: float
    damaged: str


def router(parts: Parts) -> APIRouter:
    """Return the endpoint."""
    routes = APIRouter(tags=["upkeep"])

    @routes.post("/v1/restore", responses=responses(409, 503))
    async def restore() -> Restored:
        """Put the last good backup in the place of a database that cannot be read; refused where it can."""
        try:
            saved = backup.load(parts.store.path)
            aside = parts.store.restore(saved)
        except backup.BadBackup as error:
            reason = Reason("no-backup", str(error), "add the CIDRs again, after moving the damaged database away")
            raise Problem(409, "no-backup", "There is no good backup", reasons=[reason]) from None
        except StoreReadable as error:
            reason = Reason("store-readable", str(error), "nothing; a restore would lose the latest changes")
            raise Problem(409, "store-readable", "Nothing to restore", reasons=[reason]) from None
        return Restored(len(saved.intents), saved.at, "" if aside is None else str(aside))

    return routes
