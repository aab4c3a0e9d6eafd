"""From what is asked to what is wanted: whether a CIDR may be, what goes with it, and what would then be done.

The guard is asked with facts that are not old: nothing waits between its answer and the change. A CIDR that is new is
not let in while nobody knows what the VPC is, unless that is wanted: it may be where the VPC's own hosts live, and what
they are answered would vanish in the tunnel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from api.bodies import Change, NewCidr, options
from api.parts import Parts, asked_facts, blind_spot, first_look
from api.problem import Problem, Reason
from api.resources import ChangeResource, etag, known
from appliance import detour, guard
from appliance.model import Intent, Network, Phase
from appliance.plan import plan
from appliance.status import LayerState


def already(parts: Parts, network: Network, new: NewCidr) -> Intent | None:
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

Wish = tuple[Intent, tuple[guard.Reason, ...]]
"""What to put into the store, and what to say beside it."""


async def fresh(parts: Parts, network: Network, asked: Change) -> Wish:
    """Judge a CIDR that takes defaults for what is not said; raise where it cannot be."""
    given = options(network, asked)
    if not asked.force:
        await first_look(parts)
    facts = await asked_facts(parts)
    others = tuple(each for each in facts.intents if each.network != network)
    facts = replace(facts, intents=others)
    _refuse(network, guard.judge(network, facts))  # before "which link?": no answer to that would mend it
    wish = _judged(parts, Intent(network, _via(asked, facts.links)), given, facts, force=asked.force)
    before = parts.store.get(network)
    if not asked.force and (before is None or before.phase is not Phase.PRESENT):
        _must_see(parts)
    return wish


def _must_see(parts: Parts) -> None:
    if blind := blind_spot(parts):
        step = (
            "it is asked again by itself, see `nexthop status`; where it need not be checked say --force (force: true)"
        )
        reasons = [Reason(each.code, each.text, step) for each in blind]
        raise Problem(503, "vpc-unknown", "The VPC is not known yet", reasons=reasons)


async def changed(parts: Parts, network: Network, asked: Change) -> Wish:
    """Judge a change of a CIDR that is there; raise where it is not, is leaving, or cannot be."""
    known(parts, network)
    given = options(network, asked)
    facts = await asked_facts(parts)
    before = known(parts, network)
    if before.phase is not Phase.PRESENT:
        reason = Reason("cidr-leaving", f"{network} is being removed", f"nexthop cidr add {network}")
        raise Problem(409, "cidr-leaving", "This CIDR is being removed", reasons=[reason])
    others = replace(facts, intents=tuple(each for each in facts.intents if each.network != network))
    if asked.via is not None:
        given["via"] = asked.via
    return _judged(parts, before, given, others, force=asked.force)


def _judged(parts: Parts, before: Intent, given: dict[str, Any], facts: guard.Facts, *, force: bool) -> Wish:
    intent = replace(before, **given)
    reasons = guard.judge(intent.network, facts, via=intent.via)
    _refuse(intent.network, reasons)
    if before.created_at == 0.0 or (intent.when_down, intent.via) != (before.when_down, before.via) or force:
        reasons += _policy(parts, intent, force=force)
    return intent, (*reasons, *blind_spot(parts))


def must_match(intent: Intent | None, if_match: str | None, if_none_match: str | None = None) -> None:
    """Hold a change to the state that its author saw (RFC 9110, section 13.1); raise where it is another."""
    if if_none_match is not None and intent is not None:
        raise _mismatch("it is there already", intent)
    if if_match is None:
        return
    if intent is None:
        raise _mismatch("it is not there", None)
    tags = [tag.strip() for tag in if_match.split(",")]
    if "*" not in tags and f'"{etag(intent)}"' not in tags:
        raise _mismatch("somebody else changed it since you looked", intent)


def _mismatch(text: str, intent: Intent | None) -> Problem:
    step = "look again, then repeat your change" + ("" if intent is None else f'; its ETag is now "{etag(intent)}"')
    reason = Reason("etag-mismatch", text, step)
    return Problem(412, "etag-mismatch", "This is not the state that you saw", reasons=[reason])


def steps(parts: Parts, intent: Intent) -> tuple[ChangeResource, ...]:
    """Return what would be done if this were wanted, from the tables as last seen."""
    return tuple(_steps(parts, intent))


def _steps(parts: Parts, intent: Intent) -> Iterator[ChangeResource]:
    network, before = intent.network, parts.store.get(intent.network)
    cidr, leaving = str(network), intent.phase is not Phase.PRESENT
    carried = before is not None and parts.kernel.layer(network).state is LayerState.OK
    way = f"to link {intent.via}, {'masqueraded' if intent.snat else 'not masqueraded'}"
    if leaving:
        yield ChangeResource("delete", cidr, "kernel", "carried" if carried else "not carried", "after the cloud")
    elif not carried:
        yield ChangeResource("create", cidr, "kernel", "not carried", f"route it {way}")
    elif before is not None and etag(before) != etag(intent):
        yield ChangeResource("modify", cidr, "kernel", "carried", f"route it {way}, without a gap")
    seen = parts.cloud.observation
    if seen is None:
        if parts.clouded:
            yield ChangeResource("wait", cidr, "", "unknown", "the cloud has not answered yet")
        return
    intents = (*(each for each in parts.store.all() if each.network != network), intent)
    carrying = parts.cloud.carrying() - {network} if leaving else parts.cloud.carrying() | {network}
    for each in plan(intents, carrying, parts.store.released(), seen).changes:
        if each.cidr == network:
            yield ChangeResource(each.action.value, cidr, each.table, each.now, each.text)


def _via(asked: Change, links: frozenset[str]) -> str:
    """Return the link that is meant."""
    if asked.via is not None:
        return asked.via
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


def _refuse(network: Network, reasons: tuple[guard.Reason, ...]) -> None:
    found = guard.refused(reasons)
    if found:
        given = [Reason(each.code, each.text, each.next_step) for each in found]
        raise Problem(422, "cidr-refused", f"{network} cannot be carried", reasons=given)
