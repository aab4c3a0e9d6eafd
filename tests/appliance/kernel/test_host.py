"""Sysctls are read, set where they differ, read back, and told; what is not there is no trouble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.kernel import host

if TYPE_CHECKING:
    from .conftest import Space

lab = pytest.mark.lab


@lab
def test_what_differs_is_set_and_told_once(space: Space) -> None:
    space.sh(
        "ip tuntap add dev tun-hk mode tun; ip link add eth0 type veth peer name far; sysctl -qw net.ipv4.ip_forward=0"
    )
    wanted = host.wanted("eth0", ["tun-hk"], v6=True)
    with space.entered():
        drifts = host.keep(wanted)
        assert all(drift.mended for drift in drifts)
        assert {drift.kind for drift in drifts} >= {"sysctl net/ipv4/ip_forward", "sysctl net/ipv6/conf/all/forwarding"}
        assert host.keep(wanted) == ()
        space.sh("sysctl -qw net.ipv4.conf.tun-hk.rp_filter=1")
        (drift,) = host.keep(wanted)
    assert (drift.kind, drift.was, drift.now) == ("sysctl net/ipv4/conf/tun-hk/rp_filter", "1", "2")
    assert space.sh("sysctl -n net.ipv4.conf.eth0.send_redirects net.ipv4.conf.all.send_redirects") == "0\n0\n"


@lab
def test_a_device_that_vanished_is_no_trouble(space: Space) -> None:
    with space.entered():
        host.keep(host.wanted("gone0", ["tun-gone"]))
        assert host.keep(host.wanted("gone0", ["tun-gone"])) == ()


def test_ipv6_forwarding_is_left_alone_without_an_ipv6_cidr() -> None:
    keys = {setting.key for setting in host.wanted("eth0", ["tun-hk"])}
    assert "ipv6/conf/all/forwarding" not in keys
    assert not any(key.startswith(("ipv4/conf/all/rp_filter", "ipv6/conf/all")) for key in keys)


def test_a_machine_that_is_not_to_forward_yet_is_not_made_a_router() -> None:
    keys = {setting.key for setting in host.wanted("eth0", ["tun-hk"], v6=True, forwards=False)}
    assert not any(key.endswith("forwarding") or key == "ipv4/ip_forward" for key in keys)
    assert "ipv4/conf/tun-hk/ignore_routes_with_linkdown" in keys


def test_what_cannot_be_written_is_told_as_not_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "ipv4/ip_forward").write_text("0\n")
    monkeypatch.setattr(host, "_ROOT", tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    (drift,) = host.keep([host.Sysctl("ipv4/ip_forward", "1")])
    assert not drift.mended
    assert (drift.was, drift.now, drift.wanted) == ("0", "0", "1")


def test_a_table_of_connections_that_is_too_small_is_enlarged_and_a_larger_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel lets only the machine itself set it, no namespace: so files stand in for it."""
    monkeypatch.setattr(host, "_ROOT", tmp_path)
    (tmp_path / "netfilter").mkdir()
    most, buckets = (tmp_path / "netfilter" / name for name in ("nf_conntrack_max", "nf_conntrack_buckets"))
    most.write_text("65536\n")
    buckets.write_text("262144\n")
    settings = host.wanted(None, [], conntrack=524288)
    (drift,) = host.keep(settings)
    assert (drift.was, drift.now, drift.mended) == ("65536", "524288", True)
    assert buckets.read_text() == "262144\n"
    assert host.keep(settings) == ()
    assert not any("conntrack" in setting.key for setting in host.wanted(None, []))
