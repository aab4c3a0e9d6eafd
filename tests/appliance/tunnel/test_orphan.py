"""Who is an orphan that may be ended: only our own worker, without its parent, that holds this very device."""

import pytest

from appliance.tunnel import orphan


@pytest.mark.parametrize(
    ("words", "parent", "device", "orphaned"),
    [
        (["python", "-m", orphan.WORKER, "7", "100"], 1, "tun-hk", True),
        (["python", "-m", orphan.WORKER, "7", "100"], 100, "tun-hk", False),
        (["python", "-m", orphan.WORKER, "7", "100"], 1, "tun-sg", False),
        (["openvpn", "--dev", "tun-hk"], 1, "tun-hk", False),
        (["vi", orphan.WORKER], 1, "tun-hk", False),
        ([], 1, "tun-hk", False),
    ],
    ids=["ours", "its parent lives", "another device", "somebody else's", "a name that means nothing", "the kernel's"],
)
def test_an_orphan_is_told_from_everybody_else(tmp_path, words, parent, device, orphaned):
    (tmp_path / "cmdline").write_text("".join(f"{word}\0" for word in words))
    (tmp_path / "status").write_text(f"Name:\tpython3\nPid:\t7\nPPid:\t{parent}\n")
    (tmp_path / "fdinfo").mkdir()
    (tmp_path / "fdinfo" / "3").write_text("pos:\t0\nflags:\t02\n")
    (tmp_path / "fdinfo" / "4").write_text(f"pos:\t0\nflags:\t0104002\niff:\t{device}\n")
    assert orphan._orphan_with(tmp_path, "tun-hk") is orphaned


def test_a_process_that_ended_meanwhile_is_none(tmp_path):
    assert not orphan._orphan_with(tmp_path / "gone", "tun-hk")
    assert orphan.end("tun-nobody-has") == []
