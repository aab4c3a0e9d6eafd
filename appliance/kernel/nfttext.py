"""Our nftables table as text for ``nft -f -``, and what ``nft -j -t list table`` says of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from appliance.kernel.prefixes import network_of
from appliance.kernel.rules import Action, Chain, Layout, Line, State, version_of

TABLE: Final = "nexthop"
# type, hook, priority: five before filter (0) and srcnat (100), and where mangle is.
_HOOKS: Final = {
    Chain.FORWARD: ("filter", "forward", -5),
    Chain.POSTROUTING: ("nat", "postrouting", 95),
    Chain.MANGLE: ("filter", "forward", -150),
    Chain.INPUT: ("filter", "input", -5),
}
_NAMES: Final = {chain.value if chain is not Chain.MANGLE else "clamp": chain for chain in Chain}
_VERDICTS: Final = {
    Action.ACCEPT: "accept",
    Action.DROP: "counter drop",
    Action.RETURN: "return",
    Action.MASQUERADE: "masquerade",
    Action.CLAMP: "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu",
}
_UNREACHABLE: Final = {
    4: "reject with icmp type host-unreachable",
    6: "reject with icmpv6 type addr-unreachable",
}
_TYPES: Final = {4: "ipv4_addr", 6: "ipv6_addr"}
_ICMP: Final = {4: "icmp", 6: "ipv6-icmp"}
_COMMENT: Final = "nexthop"


def render(wanted: Layout) -> str:
    """Return the transaction that replaces our table by one with this layout."""
    # `add` first: deleting what is not there would fail the transaction.
    text = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for name, prefixes in wanted.sets.items():
        elements = ", ".join(str(network_of(prefix, version_of(name))) for prefix in sorted(prefixes))
        text.append(f"  set {name} {{ type {_TYPES[version_of(name)]}; flags interval; elements = {{ {elements} }}; }}")
    for name, chain in _NAMES.items():
        kind, hook, priority = _HOOKS[chain]
        text.append(f"  chain {name} {{ type {kind} hook {hook} priority {priority}; policy accept;")
        text += [f'    {_rule(line)} comment "{_COMMENT}"' for line in wanted.lines if line.chain is chain]
        text.append("  }")
    return "\n".join([*text, "}", ""])


def _rule(line: Line) -> str:
    words = []
    for key, device in (("iifname", line.incoming), ("oifname", line.outgoing)):
        if device:
            words.append(f'{key} {"!= " if device.startswith("!") else ""}"{device.removeprefix("!")}"')
    for name, field in ((line.destination, "daddr"), (line.source, "saddr")):
        if name:
            words.append(f"{'ip' if version_of(name) == 4 else 'ip6'} {field} @{name}")
    if line.icmp:
        words.append(f"meta l4proto {_ICMP[version_of(line.source)]}")
    if line.state is not State.ANY:
        words.append(f"ct state {line.state.value}")
    if line.action is Action.REJECT:
        words.append(_UNREACHABLE[version_of(line.destination)])
    elif line.action is Action.SET_MSS:
        words.append(f"tcp flags & (syn | rst) == syn tcp option maxseg size set {line.size}")
    else:
        words.append(_VERDICTS[line.action])
    return " ".join(words)


def read(listing: Sequence[dict[str, Any]]) -> tuple[tuple[Line, ...], frozenset[str], tuple[str, ...]]:
    """Return the rules that a JSON listing of our table holds, the names of its sets, and what else is in it."""
    faults: list[str] = []
    found: dict[Chain, list[Line]] = {chain: [] for chain in Chain}
    hooked: set[str] = set()
    sets: set[str] = set()
    for item in listing:
        kind, value = next(iter(item.items()))
        if kind == "chain":
            faults += _chain_faults(value)
            hooked.add(value["name"])
        elif kind == "rule":
            chain = _NAMES.get(value["chain"])
            line = _line(chain, value) if chain is not None else None
            if chain is None or line is None:
                faults.append(f"a rule in chain {value['chain']} is none of ours")
            else:
                found[chain].append(line)
        elif kind == "set" and _is_ours(value):
            sets.add(value["name"])
        elif kind not in {"metainfo", "table"}:
            faults.append(f"a {kind} in table inet {TABLE} is none of ours")
    faults += [f"chain {name} is missing" for name in _NAMES if name not in hooked]
    return tuple(line for chain in Chain for line in found[chain]), frozenset(sets), tuple(faults)


def _is_ours(value: dict[str, Any]) -> bool:
    """Whether a set is of the shape that we write; its name tells the type."""
    shapes = [{"type": _TYPES[version], "flags": ["interval"]} for version in _TYPES
              if value["name"].startswith(f"{_COMMENT}{version}-")]  # fmt: skip
    described = {key: told for key, told in value.items() if key not in {"family", "name", "table", "handle"}}
    return described in shapes


def _chain_faults(value: dict[str, Any]) -> list[str]:
    chain = _NAMES.get(value["name"])
    if chain is None:
        return [f"chain {value['name']} is none of ours"]
    now = (value.get("type"), value.get("hook"), value.get("prio"))
    if now != _HOOKS[chain] or value.get("policy", "accept") != "accept":
        return [f"chain {value['name']} is not hooked as we hook it"]
    return []


def _line(chain: Chain, rule: dict[str, Any]) -> Line | None:
    """Return the line that this rule says, None if it says anything else."""
    if rule.get("comment") != _COMMENT:
        return None
    parts = _parts(rule["expr"])
    if parts is None or "action" not in parts:
        return None
    if parts["action"] in _REJECTS:
        if not parts.get("destination", "").startswith(f"{_COMMENT}{_REJECTS[parts['action']]}"):
            return None
        parts |= {"action": Action.REJECT}
    if "icmp" in parts:
        if not parts.get("source", "").startswith(f"{_COMMENT}{parts['icmp']}"):
            return None
        parts |= {"icmp": True}
    return Line(chain, **parts)


def _parts(expressions: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the fields of `Line` that these say, None where they say anything else."""
    parts: dict[str, Any] = {}
    syn = counters = 0
    for expression in expressions:
        kind, value = next(iter(expression.items()))
        if kind == "match" and value in _SYN:
            syn += 1
            continue
        if kind == "counter":
            counters += 1
            continue
        found = _matched(value) if kind == "match" else _verdict(kind, value)
        if found is None or found[0] in parts:
            return None
        parts[found[0]] = found[1]
    if isinstance(size := parts.get("action"), int):
        parts |= {"action": Action.SET_MSS, "size": size}
    action = parts.get("action")
    as_ours = syn == (action in {Action.CLAMP, Action.SET_MSS}) and counters == (action is Action.DROP)
    return parts if as_ours else None


_FLAGS: Final = {"payload": {"protocol": "tcp", "field": "flags"}}
# "tcp flags & (syn | rst) == syn" as nft 1.0 lists it, and as nft 1.1 does.
_SYN: Final = tuple(
    {"op": "==", "left": {"&": [_FLAGS, both]}, "right": "syn"} for both in (["syn", "rst"], {"|": ["syn", "rst"]})
)
_MSS: Final = {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": {"rt": {"key": "mtu"}}}
_FAMILY: Final = {"ip": 4, "ip6": 6}
_PROTOCOLS: Final = {"icmp": 4, 1: 4, "ipv6-icmp": 6, "icmpv6": 6, 58: 6}  # by number without an /etc/protocols


def _matched(match: dict[str, Any]) -> tuple[str, Any] | None:
    """Return (field of `Line`, its value)."""
    inverse = {"==": "", "!=": "!", "in": ""}.get(match["op"])
    left, right = match["left"], match["right"]
    key = left.get("meta", {}).get("key")
    if inverse is None:
        return None
    if key in {"iifname", "oifname"} and isinstance(right, str) and not right.endswith("*"):
        return ("incoming" if key == "iifname" else "outgoing"), inverse + right
    if inverse:
        return None
    if key == "l4proto":
        return ("icmp", _PROTOCOLS[right]) if right in _PROTOCOLS else None
    if left == {"ct": {"key": "state"}}:
        held = frozenset([right] if isinstance(right, str) else right)
        states = {frozenset(state.value.split(",")): state for state in State if state is not State.ANY}
        return ("state", states[held]) if held in states else None
    payload = left.get("payload", {})
    field = {"daddr": "destination", "saddr": "source"}.get(payload.get("field"))
    version = _FAMILY.get(payload.get("protocol"))
    if field is None or version is None or not isinstance(right, str) or not right.startswith(f"@{_COMMENT}{version}-"):
        return None
    return field, right.removeprefix("@")


_REJECTS: Final = {("icmp", "host-unreachable"): 4, ("icmpv6", "addr-unreachable"): 6}


def _verdict(kind: str, value: Any) -> tuple[str, Any] | None:
    if kind == "reject" and isinstance(value, dict):
        answer = (value.get("type"), value.get("expr"))
        return ("action", answer) if answer in _REJECTS else None
    if kind == "mangle" and value["key"] == _MSS["key"]:
        return "action", Action.CLAMP if value == _MSS else value["value"]
    simple = {Action.ACCEPT, Action.DROP, Action.RETURN, Action.MASQUERADE}
    actions = {action.value: action for action in simple}
    return ("action", actions[kind]) if kind in actions and value is None else None
