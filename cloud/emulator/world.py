"""The state of the emulated region and what may be done to its route tables. Pure: `now` is passed in, in seconds.

Writes are asynchronous, as in the cloud: an entry is Pending, Modifying or Deleting for `settle_ms`, packets follow the
new state only after that, and until then no other write of this VPC is taken. The rules and the texts of the errors are
those of the CreateRouteEntry, ModifyRouteEntry and DeleteRouteEntry pages of the VPC API reference (2016-04-28).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, ip_network
from typing import Final

from cloud.emulator.values import ApiError, Change, Entry, Hop, NextHop, Wanted
from cloud.emulator.worldfile import Instance, RouteTable, VSwitch, WorldFile

__all__ = ["ApiError", "Change", "Entry", "Hop", "NextHop", "Wanted", "World"]

SERVICES: Final = IPv4Network("100.64.0.0/10")  # a system entry of every table
_FORBIDDEN: Final = tuple(map(IPv4Network, ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4")))
_TOKEN_LENGTH: Final = 64
_REMEMBERED: Final = 64  # states before writes, for lists that lag
_NAME_LENGTH: Final = 128
_DESCRIPTION_LENGTH: Final = 256


_BATCH_CODES: Final = {
    "Duplicated.VpcNextHop": "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
    "InvalidCIDRBlock.Duplicate": "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
    "IncorrectRouteEntryStatus": "VPC_ROUTE_ENTRY_STATUS_ERROR",
    "InvalidRouteEntry.NotFound": "VPC_ROUTER_ENTRY_NOT_EXIST",
}


class World:
    """One VPC, alive."""

    def __init__(self, file: WorldFile) -> None:
        self.file = file
        self.tables: Mapping[str, RouteTable] = {table.id: table for table in file.route_table}
        self.vswitches: Mapping[str, VSwitch] = {vswitch.id: vswitch for vswitch in file.vswitch}
        self.instances: Mapping[str, Instance] = {instance.id: instance for instance in file.instance}
        self._entries: dict[str, Entry] = {}
        self._tokens: dict[str, tuple[Wanted, str]] = {}
        self._numbered = 0
        self._past: deque[tuple[float, dict[str, Entry]]] = deque(maxlen=_REMEMBERED)
        self.source_dest_check = {each.eni: each.source_dest_check for each in file.instance}
        for table in file.route_table:
            for cidr in (*(vswitch.cidr for vswitch in file.vswitch), SERVICES):
                self._add(Entry(self._new_id(), table.id, cidr, NextHop("local", ""), custom=False))

    def as_of(self, then: float) -> World:
        """Return the world as it was at `then`, to look at: what a list that lags shows."""
        old = World(self.file)
        state = next((before for until, before in self._past if until > then), self._entries)
        old._entries = dict(state)
        return old

    def entries(self, table: str, now: float) -> list[Entry]:
        """Return what is in the table at `now`; raise `ApiError` if there is no such table."""
        self._settle(now)
        self._table(table, status=400, code="InvalidRouteTable.NotFound")
        return [entry for entry in self._entries.values() if entry.table == table]

    def create(self, wanted: Wanted, now: float, *, token: str = "", dry_run: bool = False) -> str:
        """Add an entry and return its id. The same `token` with the same wish returns the first call's answer again."""
        self._settle(now)
        if token:
            if len(token) > _TOKEN_LENGTH or not token.isascii():
                raise ApiError("InvalidParameter.ClientToken", "Specified ClientToken is not valid.")
            if token in self._tokens:
                before, answer = self._tokens[token]
                if before != wanted:
                    message = "The same ClientToken was used with other parameters."
                    raise ApiError("IdempotentParameterMismatch", message)
                return answer
        destination = self._may_create(wanted)
        self._check_idle()
        _end_of_dry_run(dry_run)
        self._remember(now)
        entry_id = self._make(wanted, destination, now)
        if token:
            self._tokens[token] = wanted, entry_id
        return entry_id

    def create_many(
        self, wishes: Sequence[Wanted], now: float, *, dry_run: bool = False
    ) -> tuple[list[str], list[tuple[Wanted, ApiError]]]:
        """Add what can be added; return the ids made, and what was refused and why."""
        self._settle(now)
        self._check_idle()
        self._remember(now)
        made: list[str] = []
        failed: list[tuple[Wanted, ApiError]] = []
        for wanted in wishes:
            try:
                destination = self._may_create(wanted)
            except ApiError as error:
                failed.append((wanted, _of_batch(error)))
            else:
                if not dry_run:
                    made.append(self._make(wanted, destination, now))
        _end_of_dry_run(dry_run)
        return made, failed

    def _make(self, wanted: Wanted, destination: IPv4Network, now: float) -> str:
        status, at = ("Pending", now + self.file.settle_ms / 1000) if self.file.settle_ms else ("Available", now)
        entry = Entry(
            id=self._new_id(),
            table=wanted.table,
            destination=destination,
            hop=wanted.hop,
            name=wanted.name,
            description=wanted.description,
            status=status,
            settled_at=at,
            changed_at=now,
        )
        self._add(entry)
        return entry.id

    def modify(self, entry_id: str, change: Change, now: float, *, dry_run: bool = False) -> None:
        """Change the next hop in place, or the texts, or all of them."""
        self._settle(now)
        entry = self._writable(entry_id)
        self._check_idle()
        self._check_texts(change.name or "", change.description or "")
        if change.hop is not None:
            self._check_hop(change.hop)
            if change.hop == entry.hop:
                raise ApiError("OperationDenied.NextHopNotChanged", "The next hop of the route entry is not changed.")
        _end_of_dry_run(dry_run)
        self._remember(now)
        entry = replace(
            entry,
            name=entry.name if change.name is None else change.name,
            description=entry.description if change.description is None else change.description,
            changed_at=now,
        )
        if change.hop is not None:
            at = now + self.file.settle_ms / 1000
            entry = replace(entry, status="Modifying", settled_at=at, pending_hop=change.hop)
        self._add(entry)
        self._settle(now)

    def delete(self, entry_id: str, now: float, *, dry_run: bool = False) -> None:
        """Remove a custom entry."""
        self._settle(now)
        entry = self._writable(entry_id)
        self._check_idle()
        _end_of_dry_run(dry_run)
        self._remember(now)
        self._vanish(entry, now)

    def delete_many(
        self, names: Sequence[str | tuple[str, str]], now: float, *, dry_run: bool = False
    ) -> dict[int, ApiError]:
        """Remove entries named by id, or by table and destination; return what was refused, by its place in `names`."""
        self._settle(now)
        self._check_idle()
        self._remember(now)
        failed: dict[int, ApiError] = {}
        found: list[Entry] = []
        for index, name in enumerate(names):
            try:
                found.append(self._writable(name if isinstance(name, str) else self.find(*name, now)))
            except ApiError as error:
                failed[index] = _of_batch(error)
        _end_of_dry_run(dry_run)
        for entry in found:
            self._vanish(entry, now)
        return failed

    def _vanish(self, entry: Entry, now: float) -> None:
        at = now + self.file.settle_ms / 1000
        self._add(replace(entry, status="Deleting", settled_at=at, changed_at=now))
        self._settle(now)

    def find(self, table: str, destination: str, now: float) -> str:
        """Return the id of the table's entry for exactly this destination, or raise `ApiError`."""
        self._settle(now)
        self._table(table)
        cidr = _cidr(destination)
        for entry in self._entries.values():
            if entry.table == table and entry.destination == cidr:
                return entry.id
        raise ApiError("InvalidRouteEntry.NotFound", "Route entry not exists.")

    def next_change(self, now: float) -> float | None:
        """Return in how many seconds an entry settles, or None if all have."""
        waiting = [entry.settled_at for entry in self._entries.values() if entry.status != "Available"]
        return max(0.0, min(waiting) - now) if waiting else None

    def hops(self, now: float) -> frozenset[Hop]:
        """Return what the virtual router does at `now`."""
        self._settle(now)
        return frozenset(self._hops())

    def _hops(self) -> Iterator[Hop]:
        for table in self.tables:
            for vswitch in self.vswitches.values():
                yield Hop(table, vswitch.cidr, None, vswitch.interface)
        for entry in self._entries.values():
            target = self._target(entry.hop)
            if entry.custom and entry.status != "Pending" and target is not None:
                yield Hop(entry.table, entry.destination, target.ip, self.vswitches[target.vswitch].interface)

    def _settle(self, now: float) -> None:
        for entry in list(self._entries.values()):
            if entry.status == "Available" or entry.settled_at > now:
                continue
            if entry.status == "Deleting":
                del self._entries[entry.id]
            else:
                self._add(replace(entry, status="Available", hop=entry.shown_hop, pending_hop=None))

    def _may_create(self, wanted: Wanted) -> IPv4Network:
        self._table(wanted.table)
        destination = _cidr(wanted.destination)
        self._check_texts(wanted.name, wanted.description)
        self._check_hop(wanted.hop)
        if destination.subnet_of(SERVICES) or any(destination.subnet_of(vswitch.cidr) for vswitch in self.file.vswitch):
            raise ApiError("InvalidCidrBlock", "Specified CIDR block is not valid.")
        if any(destination.subnet_of(forbidden) for forbidden in _FORBIDDEN):
            raise ApiError("IllegalParam.CidrBlock", "Specified CIDR block must not included in black list cidr.")
        # Before the state of the VPC: a duplicate stays one, however long the caller waits.
        for entry in self._entries.values():
            if entry.table == wanted.table and entry.destination == destination:
                if self.file.duplicate_code:
                    raise ApiError(self.file.duplicate_code, "The route entry already exists.")
                if entry.shown_hop == wanted.hop:
                    raise ApiError("Duplicated.VpcNextHop", "Route entry nexthop duplicate.")
                raise ApiError("InvalidCIDRBlock.Duplicate", "Specified CIDR block is already exists.")
        if sum(entry.custom and entry.table == wanted.table for entry in self._entries.values()) >= self.file.quota:
            raise ApiError("QuotaExceeded", "Route entry quota exceeded in this route table.")
        return destination

    def _writable(self, entry_id: str) -> Entry:
        entry = self._entries.get(entry_id)
        if entry is None:
            raise ApiError("InvalidRouteEntry.NotFound", "Route entry not exists.")
        if not entry.custom:
            raise ApiError("OperationDenied", "Operation is denied, since the route entry type is system.")
        if entry.status != "Available":
            raise ApiError("IncorrectRouteEntryStatus", "Specified routeEntry status error.")
        return entry

    def _check_idle(self) -> None:
        if any(entry.status != "Available" for entry in self._entries.values()):
            message = "The operation is too frequent, please wait a moment and try again."
            raise ApiError("TaskConflict", message)

    def _table(self, table: str, *, status: int = 404, code: str = "InvalidRouteTableId.NotFound") -> RouteTable:
        if table not in self.tables:
            raise ApiError(code, "Specified route table does not exist.", status=status)
        return self.tables[table]

    def _check_hop(self, hop: NextHop) -> None:
        if hop.type not in {"Instance", "NetworkInterface"}:
            raise ApiError("InvalidNextHopType", "Specified next hop type is not valid.")
        if self._target(hop) is None:
            raise ApiError("InvalidNextHopId.NotFound", "Specified next hop does not exist.", status=404)

    def _target(self, hop: NextHop) -> Instance | None:
        if hop.type == "NetworkInterface":
            return next((each for each in self.instances.values() if each.eni == hop.id), None)
        return self.instances.get(hop.id)

    def _check_texts(self, name: str, description: str) -> None:
        web = ("http://", "https://")
        if len(name) > _NAME_LENGTH or name.startswith(web):
            raise ApiError("InvalidRouteEntryName.Malformed", "Specified RouteEntry name is not valid.")
        if len(description) > _DESCRIPTION_LENGTH or description.startswith(web):
            raise ApiError("InvalidDescription.Malformed", "The Description is illegal.")

    def _remember(self, now: float) -> None:
        self._past.append((now, dict(self._entries)))

    def _add(self, entry: Entry) -> None:
        self._entries[entry.id] = entry

    def _new_id(self) -> str:
        self._numbered += 1
        return "rte-emu" + hashlib.sha256(str(self._numbered).encode()).hexdigest()[:17]


def _end_of_dry_run(dry_run: bool) -> None:  # noqa: FBT001 - the call's own flag
    if dry_run:
        raise ApiError("DryRunOperation", "Request validation has been passed with DryRun flag set.")


def _of_batch(error: ApiError) -> ApiError:
    """Return an error as the batch calls spell it for one entry; others keep the single call's code."""
    return ApiError(_BATCH_CODES.get(error.code, error.code), error.message)


def _cidr(text: str) -> IPv4Network:
    """Read a destination as the cloud does: a bare address is one host, and host bits are cut off."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ApiError("InvalidCidrBlock.Malformed", "Specified CIDR block is not valid.") from None
    if not isinstance(network, IPv4Network):
        raise ApiError("OperationDenied.VpcIpv6NotEnabled", "IPv6 is not enabled for the VPC.")
    return network
