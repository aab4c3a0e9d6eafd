from __future__ import annotations

from appliance.devices import Tunnels
from appliance.kernel.state import Device, KernelState
from tests.appliance.fakes import tun

HK = {"hk": "tun-hk"}


def seen(device: Device | None) -> KernelState:
    return KernelState(frozenset(), frozenset(), {} if device is None else {device.name: device})


def looks(*devices: Device | None) -> list[tuple[str, ...]]:
    tunnels = Tunnels()
    return [tunnels.look(HK, seen(device)) for device in devices]


def test_a_device_that_comes_for_the_first_time_is_no_repair() -> None:
    assert looks(None, tun(address=None), tun()) == [(), (), ()]


def test_a_device_made_anew_is_told_once_whether_its_absence_was_seen_or_not() -> None:
    assert looks(tun(), None, tun(index=9), tun(index=9)) == [(), (), ("tun-hk",), ()]
    assert looks(tun(), tun(index=9)) == [(), ("tun-hk",)]


def test_a_link_that_was_removed_is_forgotten() -> None:
    tunnels = Tunnels()
    assert tunnels.look(HK, seen(tun())) == ()
    assert tunnels.look({}, seen(None)) == ()
    assert tunnels.look(HK, seen(tun(index=9))) == ()
