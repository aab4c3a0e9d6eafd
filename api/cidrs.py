"""/v1/cidrs: state which CIDRs the VPC shall reach through this machine.

A POST that asks for what is there already is no error and changes nothing, so it is safe to repeat. Fields that are
left out of it ask for nothing: they take their defaults for a new CIDR, and match whatever an existing one has.
"""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Response
from pydantic.dataclasses import dataclass

from api.bodies import LONGEST, Change, NewCidr, options
from api.parts import Parts, asked_facts, blind_spot, known_facts
from api.problem import Problem, Reason, responses
from appliance import detour, guard, wayback
from appliance.intent import UnknownCidr
from appliance.model import BadCidr, Intent, Network, Phase, parse_cidr
from appliance.options import mss_text
from appliance.status import CidrStatus, Layer


@dataclass(frozen=True, slots=True)
class LayerResource:
    """How far one layer is: `state` is ok, pending, error or absent."""

    state: str
    detail: str
    code: str


@dataclass(frozen=True, slots=True)
class CidrLayers:
    """The layers that a CIDR goes through."""

    kernel: LayerResource
    cloud: LayerResource


@dataclass(frozen=True, slots=True)
class CidrResource:
    """A CIDR as it stands. `phase`: present, leaving or withdrawn; `created_at`: seconds since the epoch.

    `path`: whether its probe target answers through the tunnel; absent without one.
    """

    cidr: str
    via: str
    snat: bool
    comment: str
    mss: str
    probe: str
    when_down: str
    hold_down: float
    phase: str
    created_at: float
    layers: CidrLayers
    path: LayerResource
    warnings: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class CidrList:
    """The body of GET /v1/cidrs, in numerical order."""

    cidrs: tuple[CidrResource, ...]


def statuses(parts: Parts) -> tuple[CidrStatus, ...]:
    """Return every CIDR through all layers, with what the guard would say of it now."""
    facts = known_facts(parts)
    return tuple(_status(parts, intent, guard.judge(intent.network, facts, via=intent.via)) for intent in facts.intents)


def status_of(parts: Parts, intent: Intent) -> CidrStatus:
    """Return one CIDR through all layers, with what the guard would say of it now."""
    return _status(parts, intent, guard.judge(intent.network, known_facts(parts), via=intent.via))


def resource(cidr: CidrStatus) -> CidrResource:
    """Return the CIDR as the API shows it."""
    intent = cidr.intent
    return CidrResource(
        cidr=str(intent.network),
        via=intent.via,
        snat=intent.snat,
        comment=intent.comment,
        mss=mss_text(intent.mss),
        probe=str(intent.probe or ""),
        when_down=intent.when_down.value,
        hold_down=intent.hold_down,
        phase=intent.phase.value,
        created_at=intent.created_at,
        layers=CidrLayers(_layer(cidr.kernel), _layer(cidr.cloud)),
        path=_layer(cidr.path),
        warnings=tuple(Reason(each.code, each.text, each.next_step) for each in cidr.warnings),
    )


def router(parts: Parts) -> APIRouter:
    """Return the endpoints."""
    routes = APIRouter(tags=["cidrs"])

    @routes.get("/v1/cidrs", responses=responses(503))
    async def ls() -> CidrList:
        """List the CIDRs with the state of each layer."""
        return CidrList(tuple(resource(each) for each in statuses(parts)))

    @routes.post("/v1/cidrs", status_code=201, responses={200: {"model": CidrResource}, **responses(409, 422, 503)})
    async def add(new: NewCidr, response: Response) -> CidrResource:
        """Ask for a CIDR; 201 where that is news, 200 where it was so already."""
        network = network_of(new.cidr)
        if (same := _already(parts, network, new)) is not None:
            response.status_code = 200
            return resource(_status(parts, same, guard.judge(network, known_facts(parts), via=same.via)))
        given = options(network, new)
        facts = await asked_facts(parts)  # nothing waits from here to the put
        _refuse(network, guard.judge(network, facts))  # before "which link?": no answer to that would mend it
        via = _via(new, facts.links)
        reasons = guard.judge(network, facts, via=via)
        _refuse(network, reasons)
        if (same := _already(parts, network, new)) is None:
            intent = replace(Intent(network, via), **given)
            reasons += _policy(parts, intent, force=new.force)
            parts.store.put(intent)
        else:
            response.status_code = 200
        return resource(_status(parts, _known(parts, network), (*reasons, *blind_spot(parts))))

    @routes.get("/v1/cidrs/{cidr:path}", responses=responses(404, 422, 503))
    async def show(cidr: str) -> CidrResource:
        """Show one CIDR."""
        network = network_of(cidr)
        intent = _known(parts, network)
        return resource(_status(parts, intent, guard.judge(network, known_facts(parts), via=intent.via)))

    @routes.patch("/v1/cidrs/{cidr:path}", responses=responses(404, 409, 422, 503))
    async def change(cidr: str, asked: Change) -> CidrResource:
        """Change how a CIDR is carried, without a gap; what is left out stays as it is."""
        return await _change(parts, network_of(cidr), asked)

    @routes.delete("/v1/cidrs/{cidr:path}", status_code=202, responses=responses(404, 422, 503))
    async def rm(cidr: str) -> CidrResource:
        """Let go of a CIDR: it leaves the cloud, then the kernel, then this list."""
        network = network_of(cidr)
        try:
            intent = parts.store.leave(network)
        except UnknownCidr:
            raise unknown(network) from None
        return resource(_status(parts, intent, ()))

    return routes


async def _change(parts: Parts, network: Network, asked: Change) -> CidrResource:
    _known(parts, network)
    given = options(network, asked)
    facts = await asked_facts(parts)  # nothing waits from here to the put
    before = _known(parts, network)
    if before.phase is not Phase.PRESENT:
        reason = Reason("cidr-leaving", f"{network} is being removed", f"nexthop cidr add {network}")
        raise Problem(409, "cidr-leaving", "This CIDR is being removed", reasons=[reason])
    intent = replace(before, via=asked.via or before.via, **given)
    others = replace(facts, intents=tuple(each for each in facts.intents if each.network != network))
    reasons = guard.judge(network, others, via=intent.via)
    _refuse(network, reasons)
    if (intent.when_down, intent.via) != (before.when_down, before.via) or asked.force:
        reasons += _policy(parts, intent, force=asked.force)
    parts.store.put(intent)
    return resource(_status(parts, intent, (*reasons, *blind_spot(parts))))


def network_of(text: str) -> Network:
    """Read a CIDR out of a request; raise the problem that says how to write it."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + "..."
    try:
        return parse_cidr(text)
    except BadCidr as error:
        what, _, mend = str(error).rpartition(": ")
        step = mend if mend.startswith(("did you mean ", "write ")) else _SPELLING
        raise Problem(422, "bad-cidr", "This is not a CIDR", str(error), [Reason("bad-cidr", what, step)]) from None


_SPELLING = "write a network and its prefix length, such as 10.244.0.0/16"


def _already(parts: Parts, network: Network, new: NewCidr) -> Intent | None:
    """Return the record if it is what is asked for; raise where it differs."""
    intent = parts.store.get(network)
    if intent is None or intent.phase is not Phase.PRESENT:
        return None
    asked = {"via": new.via} | options(network, new)
    reasons = [
        Reason(f"{name}-differs", f"{network} is there with {name} {getattr(intent, name)!r}, not {value!r}", _DIFFERS)
        for name, value in asked.items()
        if value is not None and value != getattr(intent, name)
    ]
    if reasons:
        raise Problem(409, "cidr-exists", "This CIDR is there already, and differs", reasons=reasons)
    return intent


_DIFFERS = "leave it out, or change it: nexthop cidr set"


def _via(new: NewCidr, links: frozenset[str]) -> str:
    """Return the link that is meant."""
    if new.via is not None:
        return new.via
    if len(links) == 1:
        return next(iter(links))
    if not links:
        reason = Reason("no-link", "there is no link yet", "`nexthop link join NAME` one first")
    else:
        names = ", ".join(sorted(links))
        reason = Reason("via-missing", f"there are several links: {names}", 'say which one (`--via`, "via")')
    raise Problem(422, "cidr-refused", "This CIDR cannot be carried", reasons=[reason])


def _policy(parts: Parts, intent: Intent, *, force: bool) -> tuple[guard.Reason, ...]:
    """Say what withdrawing would mean here; refuse to let packets leave unprotected, unless that is wanted."""
    reasons = detour.judge(intent, parts.cloud.observation)
    if not force:
        _refuse(intent.network, reasons)
    return tuple(replace(reason, severity=guard.Severity.WARN) for reason in reasons)


def _known(parts: Parts, network: Network) -> Intent:
    intent = parts.store.get(network)
    if intent is None:
        raise unknown(network)
    return intent


def _refuse(network: Network, reasons: tuple[guard.Reason, ...]) -> None:
    found = guard.refused(reasons)
    if found:
        given = [Reason(each.code, each.text, each.next_step) for each in found]
        raise Problem(422, "cidr-refused", f"{network} cannot be carried", reasons=given)


def _status(parts: Parts, intent: Intent, warnings: tuple[guard.Reason, ...]) -> CidrStatus:
    network = intent.network
    if intent.phase is Phase.PRESENT:
        warnings += wayback.judge(intent, parts.cloud.vpc())
    found = CidrStatus(intent, parts.kernel.layer(network), parts.cloud.layer(network), warnings)
    return found if parts.paths is None else replace(found, path=parts.paths.layer(network))


def _layer(layer: Layer) -> LayerResource:
    return LayerResource(layer.state.value, layer.detail, layer.code)


def unknown(network: Network) -> Problem:
    """Return the answer to a CIDR that nobody asked for."""
    reason = Reason("cidr-unknown", f"{network} is not in the list", "see what is: nexthop cidr ls")
    return Problem(404, "cidr-unknown", "Nobody asked for this CIDR", reasons=[reason])
