"""The firewall in nftables: one table of our own, `inet nexthop`, replaced in one transaction by ``nft -f -``.

An accept here ends only our own chain: a drop in anybody else's base chain on the same hook still wins. That cannot
be mended without editing what is not ours, so obstacles.py reports it. Our chains come before the usual priorities,
because the first chain that translates a connection decides its address.
"""

from __future__ import annotations

import json
import subprocess
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from appliance.kernel.firewall import Action, Backend, Chain, FirewallError, Line, Seen, State, aimed, sourced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.kernel.state import Network

TABLE: Final = "nexthop"
_TIMEOUT: Final = 10.0  # seconds
# type, hook, priority: five before filter (0) and srcnat (100), and where mangle is.
_HOOKS: Final = {
    Chain.FORWARD: ("filter", "forward", -5),
    Chain.POSTROUTING: ("nat", "postrouting", 95),
    Chain.MANGLE: ("filter", "forward", -150),
}
_NAMES: Final = {chain.value if chain is not Chain.MANGLE else "clamp": chain for chain in Chain}
_VERDICTS: Final = {
    Action.ACCEPT: "accept",
    Action.DROP: "drop",
    Action.RETURN: "return",
    Action.MASQUERADE: "masquerade",
    Action.CLAMP: "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu",
}
_UNREACHABLE: Final = {
    4: "reject with icmp type host-unreachable",
    6: "reject with icmpv6 type addr-unreachable",
}
_COMMENT: Final = "nexthop"


class Nftables(Backend):
    """The rules in table ``inet nexthop`` of the network namespace that the calling thread is in."""

    name = "nftables"

    def look(self) -> Seen:
        """Read our table."""
        answer = _nft("-j", "list", "table", "inet", TABLE, may_fail=True)
        if answer is None:
            return Seen((), (f"table inet {TABLE} is missing",))
        return read(json.loads(answer)["nftables"])

    def put(self, wanted: Sequence[Line]) -> None:
        """Replace our table."""
        _nft("-f", "-", text=render(wanted))
        self.writes += 1

    def purge(self) -> None:
        """Delete our table."""
        if _nft("list", "table", "inet", TABLE, may_fail=True) is not None:
            _nft("-f", "-", text=f"add table inet {TABLE}\ndelete table inet {TABLE}\n")
            self.writes += 1


def _nft(*arguments: str, text: str | None = None, may_fail: bool = False) -> str | None:
    """Run nft; None when it fails because there is no such table, and that is allowed."""
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise FirewallError("there is no nft program: install nftables") from None
    except subprocess.TimeoutExpired:
        raise FirewallError(f"nft did not answer within {_TIMEOUT:g} s") from None
    if done.returncode == 0:
        return done.stdout
    if may_fail and "No such file or directory" in done.stderr:
        return None
    reason = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    raise FirewallError(f"nft {arguments[0]} failed: {reason[0]}")


def render(wanted: Sequence[Line]) -> str:
    """Return the transaction that replaces our table by one with these lines."""
    # `add` first: deleting what is not there would fail the transaction.
    text = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for name, chain in _NAMES.items():
        kind, hook, priority = _HOOKS[chain]
        text.append(f"  chain {name} {{ type {kind} hook {hook} priority {priority}; policy accept;")
        text += [f'    {_rule(line)} comment "{_COMMENT}"' for line in wanted if line.chain is chain]
        text.append("  }")
    return "\n".join([*text, "}", ""])


def _rule(line: Line) -> str:
    words = []
    for key, device in (("iifname", line.incoming), ("oifname", line.outgoing)):
        if device:
            words.append(f'{key} {"!= " if device.startswith("!") else ""}"{device.removeprefix("!")}"')
    if line.destination is not None:
        words.append(_address(line.destination, "daddr"))
    if line.source is not None:
        words.append(_address(line.source, "saddr"))
    if line.state is not State.ANY:
        words.append(f"ct state {line.state.value}")
    if line.action is Action.REJECT and line.destination is not None:
        words.append(_UNREACHABLE[line.destination.version])
    elif line.action is Action.SET_MSS:
        words.append(f"tcp flags & (syn | rst) == syn tcp option maxseg size set {line.size}")
    else:
        words.append(_VERDICTS[line.action])
    return " ".join(words)


def _address(network: Network, field: str) -> str:
    if network.prefixlen == 0:
        return f"meta nfproto ipv{network.version}"
    return f"{'ip' if network.version == 4 else 'ip6'} {field} {network}"


def read(listing: Sequence[dict[str, Any]]) -> Seen:
    """Return what a JSON listing of our table holds."""
    faults: list[str] = []
    found: dict[Chain, list[Line]] = {chain: [] for chain in Chain}
    hooked: set[str] = set()
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
        elif kind not in {"metainfo", "table"}:
            faults.append(f"a {kind} in table inet {TABLE} is none of ours")
    faults += [f"chain {name} is missing" for name in _NAMES if name not in hooked]
    return Seen(tuple(line for chain in Chain for line in found[chain]), tuple(faults))


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
        network = ip_network(_REJECTS[parts["action"]])  # a reject of all IPv4 is listed without it
        parts = {"destination": network} | parts | {"action": Action.REJECT}
    both_ways = chain is Chain.MANGLE and parts["action"] in {Action.RETURN, Action.SET_MSS}
    if both_ways and "incoming" in parts and "destination" in parts:
        parts["source"] = parts.pop("destination")  # all of IPv4 is listed without saying which address is meant
    line = Line(chain, **parts)
    if aimed(chain, line.action, line.state, line.outgoing) != (line.destination is not None):
        return None
    return line if sourced(chain, line.action, line.incoming) == (line.source is not None) else None


def _parts(expressions: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the fields of `Line` that these say, None where they say anything else."""
    parts: dict[str, Any] = {}
    syn = 0
    for expression in expressions:
        kind, value = next(iter(expression.items()))
        if kind == "match" and value in _SYN:
            syn += 1
            continue
        found = _matched(value) if kind == "match" else _verdict(kind, value)
        if found is None or found[0] in parts:
            return None
        parts[found[0]] = found[1]
    if isinstance(size := parts.get("action"), int):
        parts |= {"action": Action.SET_MSS, "size": size}
    return parts if syn == (parts.get("action") in {Action.CLAMP, Action.SET_MSS}) else None


_FLAGS: Final = {"payload": {"protocol": "tcp", "field": "flags"}}
# "tcp flags & (syn | rst) == syn" as nft 1.0 lists it, and as nft 1.1 does.
_SYN: Final = tuple(
    {"op": "==", "left": {"&": [_FLAGS, both]}, "right": "syn"} for both in (["syn", "rst"], {"|": ["syn", "rst"]})
)
_MSS: Final = {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": {"rt": {"key": "mtu"}}}


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
    if key == "nfproto" and right in {"ipv4", "ipv6"}:
        return "destination", ip_network("0.0.0.0/0" if right == "ipv4" else "::/0")
    if left == {"ct": {"key": "state"}}:
        held = frozenset([right] if isinstance(right, str) else right)
        states = {frozenset(state.value.split(",")): state for state in State if state is not State.ANY}
        return ("state", states[held]) if held in states else None
    payload = left.get("payload", {})
    field = {"daddr": "destination", "saddr": "source"}.get(payload.get("field"))
    if field is not None and payload.get("protocol") in {"ip", "ip6"}:
        return _network(field, right)
    return None


def _network(field: str, right: object) -> tuple[str, Network] | None:
    try:
        if isinstance(right, str):
            return field, ip_network(right)
        if isinstance(right, dict) and set(right) == {"prefix"}:
            return field, ip_network((right["prefix"]["addr"], right["prefix"]["len"]))
    except ValueError:
        pass
    return None


_REJECTS: Final = {("icmp", "host-unreachable"): "0.0.0.0/0", ("icmpv6", "addr-unreachable"): "::/0"}


def _verdict(kind: str, value: Any) -> tuple[str, Any] | None:
    if kind == "reject" and isinstance(value, dict):
        answer = (value.get("type"), value.get("expr"))
        return ("action", answer) if answer in _REJECTS else None
    if kind == "mangle" and value["key"] == _MSS["key"]:
        return "action", Action.CLAMP if value == _MSS else value["value"]
    simple = {Action.ACCEPT, Action.DROP, Action.RETURN, Action.MASQUERADE}
    actions = {action.value: action for action in simple}
    return ("action", actions[kind]) if kind in actions and value is None else None
