"""What is sent to /v1/cidrs: the bodies of POST, PUT and PATCH, and their options as fields of an `Intent`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictFloat
from pydantic.dataclasses import dataclass

from api.problem import Problem, Reason
from api.schema import TAKEN
from appliance.model import Network
from appliance.options import BadOption, Target, parse_mss, parse_target, parse_when_down

CIDR_PATTERN = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:]*)/[0-9]{1,3}$"
"""For the document only: who spells it wrong gets a better answer from us than from a pattern."""
LONGEST = 64  # characters; the longest CIDR has 43

Via = Annotated[str | None, Field(max_length=LONGEST, examples=["hk"])]
Comment = Annotated[str | None, Field(max_length=200, examples=["pods in Hong Kong"])]
Mss = Annotated[str | None, Field(max_length=8, examples=["auto", "off", "1300"])]
Probe = Annotated[str | None, Field(max_length=LONGEST, examples=["tcp:10.244.1.20:80", "icmp:10.244.1.20", ""])]
WhenDownField = Annotated[str | None, Field(max_length=16, examples=["keep", "withdraw"])]
HoldDown = Annotated[StrictFloat | None, Field(ge=0, le=86400, allow_inf_nan=False, examples=[30])]


@dataclass(frozen=True, slots=True, config=TAKEN)
class Change:
    """The body of PATCH /v1/cidrs/CIDR: what is left out, or null, stays as it is."""

    via: Via = None
    """The link that carries it."""
    snat: Annotated[StrictBool | None, Field(examples=[True])] = None
    """Whether what enters the tunnel is masqueraded, so that the far end needs no route back."""
    comment: Comment = None
    """A note for those who come after you, on one line."""
    mss: Mss = None
    """What TCP's MSS is held to: `auto` (what the path takes), `off`, or bytes."""
    probe: Probe = None
    """What to ask for a sign of life: `tcp:ADDRESS:PORT`, `icmp:ADDRESS`, or empty for nothing."""
    when_down: WhenDownField = None
    """Whether the cloud's entry stays while the link is down (`keep`: hosts are told at once) or goes (`withdraw`)."""
    hold_down: HoldDown = None
    """How many seconds a link is down before the entry is withdrawn."""
    force: StrictBool = False
    """Even where packets leave unprotected once the entry is withdrawn, and while nobody knows the VPC yet."""


@dataclass(frozen=True, slots=True, config=TAKEN)
class WholeCidr(Change):
    """The body of PUT /v1/cidrs/CIDR: what is left out, or null, takes its default."""


@dataclass(frozen=True, slots=True, kw_only=True, config=TAKEN)
class NewCidr(Change):
    """The body of POST /v1/cidrs. `via` may be left out where there is exactly one link."""

    cidr: Annotated[
        str, Field(max_length=LONGEST, examples=["10.244.0.0/16"], json_schema_extra={"pattern": CIDR_PATTERN})
    ]
    """The network to carry, as ADDRESS/LENGTH."""


def options(network: Network, asked: Change) -> dict[str, Any]:
    """Return the options that were given, as fields of `Intent`; raise `Problem` with the mend."""
    given: dict[str, Any] = {"snat": asked.snat, "comment": asked.comment, "hold_down": asked.hold_down}
    try:
        given["mss"] = None if asked.mss is None else parse_mss(asked.mss)
        given["when_down"] = None if asked.when_down is None else parse_when_down(asked.when_down)
        found = {name: value for name, value in given.items() if value is not None}
        if asked.probe is not None:
            found["probe"] = _target(network, asked.probe)
        _printable(asked.comment or "")
    except BadOption as error:
        text, _, step = str(error).rpartition(": ")
        title = "The request is not as this resource takes it"
        raise Problem(422, "invalid-request", title, reasons=[Reason(error.option, text, step)]) from None
    return found


def _target(network: Network, text: str) -> Target | None:
    target = parse_target(text)
    if target is not None and target.address not in network:
        raise BadOption("probe", f"{target.address} is not in {network}: write an address that is")
    return target


def _printable(comment: str) -> None:
    if not comment.isprintable():
        raise BadOption("comment", "the comment holds control characters: write it on one line of plain text")
