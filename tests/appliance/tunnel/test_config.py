import sys

import pytest

from appliance.tunnel import gtund
from appliance.tunnel.config import ConfigError, host_and_port, read_gtund, read_link
from appliance.tunnel.messages import Mode

LINK = """[link]
name = "hk"
device = "tun-hk"
server = "203.0.113.10:9443"
pin = "cGlu"
client = "shenzhen"
key = "c2VjcmV0"
"""
GTUND = '[tunnel]\nserve = ["10.244.0.0/16"]\n'


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "file.toml"
        path.write_text(text)
        return path

    return write


def test_a_link_is_read_and_does_not_show_its_key(write):
    link = read_link(write(LINK))
    assert (link.name, link.server, link.join) == ("hk", "203.0.113.10:9443", "")
    assert "c2VjcmV0" not in repr(link)


def test_gtund_has_sound_defaults(write):
    settings = read_gtund(write(GTUND))
    assert str(settings.tunnel.subnet) == "100.64.240.0/24"
    assert settings.tunnel.snat
    assert settings.server.listen == "0.0.0.0:9443"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LINK.replace("pin", "pni"), r"\[link\] pni is not known"),
        (LINK.replace('pin = "cGlu"\n', ""), r"\[link\] pin is missing"),
        (LINK.replace('"hk"', '"Hong Kong"'), "a letter first"),
        (LINK.replace(":9443", ""), "write host:port"),
        (LINK.replace("c2VjcmV0", "not base64!"), "not base64"),
        (LINK.replace("c2VjcmV0", "ä"), "key is not base64"),
        (LINK.replace("cGlu", "ä"), "pin = 'ä' is not base64"),
        (LINK.replace('"c2VjcmV0"', '["c2VjcmV0"]'), r"\[link\] key: write a text in quotes"),
        (LINK.replace('"hk"', "5"), "name: 5 will not do: write a text in quotes"),
        (LINK.replace("203.0.113.10", "2001:db8::1"), r"write host:port, such as .* or \"\[2001:db8::1\]:9443"),
        (LINK + "connections = 0\n", "1 to 16"),
        (LINK + 'gso = "yes"\n', "gso: 'yes' will not do: write true or false, without quotes"),
        (LINK + 'channel = "both"\n', 'channel: \'both\' will not do: write "hybrid", "stream" or "datagram"'),
        (LINK + "channel = []\n", 'write "hybrid"'),
        (LINK.replace("[link]", "[lnk]"), r"'lnk' is not known here: write each key below \[link\]"),
        ('key = "c2VjcmV0"\n' + LINK, r"'key' is not known here: write each key below \[link\]"),
        (LINK.replace("[link]", "[[link]]"), r"'link' is a section: write \[link\], once"),
        ("[link", "is not TOML"),
    ],
)
def test_a_bad_link_file_is_refused_with_the_mend_and_without_its_key(write, text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        read_link(write(text))
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "serve is missing: write a list of CIDRs"),
        ("[tunnel]\nserve = []\n", "serve is empty"),
        ('[tunnel]\nserve = ["10.244.0.1/16"]\n', "serve: '10.244.0.1/16' has host bits set: write \"10.244.0.0/16\""),
        ('[tunnel]\nserve = "10.0.0.0/8"\n', r'serve: .* write a list of CIDRs, such as \["10.244.0.0/16"\]'),
        ('[tunnel]\nserve = ["10.0.0.0/8", "pods"]\n', "serve: 'pods' will not do: write a CIDR, such as"),
        ("[tunnel]\nserve = [5]\n", "serve: 5 will not do: write a CIDR"),
        (GTUND + "subnet = 5\n", "subnet: 5 will not do: write an IPv4 CIDR"),
        (GTUND + 'subnet = "100.64.0.1/24"\n', 'has host bits set: write "100.64.0.0/24"'),
        (GTUND + 'subnet = "fd00::/64"\n', "write an IPv4 CIDR"),
        (GTUND + 'subnet6 = "100.64.0.0/24"\n', "write an IPv6 CIDR"),
        (GTUND + "first = 5\n", "first: 5 will not do: write an IPv4 address in quotes"),
        (GTUND + 'gateway = "10.0.0.1"\n', "must lie in subnet"),
        (GTUND + 'subnet = "100.100.0.0/24"\n', "overlaps 100.100.0.0/16"),
        (GTUND + 'subnet6 = "fd00::/40"\n', "wider than /48"),
        (GTUND + 'snat = "yes"\n', "snat: 'yes' will not do: write true or false, without quotes"),
        (GTUND + 'mtu = "1500"\n', "mtu: '1500' will not do: write a whole number, without quotes"),
        (GTUND + "mtu = true\n", "mtu: True will not do: write a whole number"),
        (GTUND + f"mtu = {'1' * 5000}\n", "is not TOML"),
        (GTUND + f"mtu = {'[' * 5000}\n", "is not TOML"),
        (GTUND + '[server]\nstate = "var"\n', "state = 'var': write an absolute path, such as \"/var/lib/gtund\""),
        (GTUND + '[server]\nrun = ""\n', 'write an absolute path, such as "/run/gtund"'),
        (GTUND + "[servr]\n", r"'servr' is not known here: write each key below \[server\] or \[tunnel\]"),
        ("listn = 3\n" + GTUND, r"'listn' is not known here: write each key below \[server\] or \[tunnel\]"),
        ("[[tunnel]]\n", r"'tunnel' is a section: write \[tunnel\], once, on a line of its own"),
        ("server = 5\n" + GTUND, r"'server' is a section: write \[server\]"),
        ('server = "ab"\n' + GTUND, r"'server' is a section: write \[server\]"),
    ],
)
def test_a_bad_gtund_file_is_refused_with_the_mend(write, text, says):
    with pytest.raises(ConfigError, match=says):
        read_gtund(write(text))


@pytest.mark.parametrize(
    "place",
    [
        *("hk.example", ":9443", "hk.example:", "hk.example:0", "hk.example:65536", "a:" + "1" * 5000, "a:٣"),
        *("http://a:9443", "a/b:9443", "a b:9443", "a\0:9443", "fd00::1:9443", "[fd00::1:9443", "[a]:9443", "[]:9443"),
    ],
)
def test_what_is_no_host_and_port_is_told_how_to_write_one(place):
    with pytest.raises(ConfigError, match=r'^public = .*: write host:port, such as "203.0.113.10:9443" or "\[2001:'):
        host_and_port(place, "public")


@pytest.mark.parametrize(
    ("place", "host"),
    [
        ("[2001:db8::1]:9443", "2001:db8::1"),
        ("[::]:9443", "::"),
        ("[fe80::1%eth0]:9443", "fe80::1%eth0"),
        ("203.0.113.10:9443", "203.0.113.10"),
        ("gw-1.bücher_x.example.:9443", "gw-1.bücher_x.example."),
    ],
)
def test_an_ipv6_server_stands_in_brackets_and_others_do_not(place, host):
    assert host_and_port(place, "server") == (host, 9443)


@pytest.mark.parametrize("mode", Mode)
def test_every_channel_that_there_is_can_be_written_and_is_named(write, mode):
    assert read_link(write(LINK + f'channel = "{mode.value}"\n')).channel is mode
    with pytest.raises(ConfigError, match=f'"{mode.value}"'):
        read_link(write(LINK + 'channel = "both"\n'))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing.toml", r"nothing\.toml is not there: write it, or name another file"),
        (".", r"cannot be read \(Is a directory\): name a TOML file"),
        ("latin.toml", r"latin\.toml is not UTF-8 at byte 2: save it in that encoding"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_no_reason_to_start_again(tmp_path, monkeypatch, capsys, name, says):
    (tmp_path / "latin.toml").write_bytes(b"# \xe4\n")
    with pytest.raises(ConfigError, match=says):
        read_link(tmp_path / name)
    monkeypatch.setattr(sys, "argv", ["gtund", "run", "--config", str(tmp_path / name)])
    with pytest.raises(SystemExit, match=r"^2$"):
        gtund.main()
    assert capsys.readouterr().err.startswith(f"gtund: {tmp_path}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["client", "add", "x", "--prefix", "10.0.0.1/8"], 'has host bits set: write "10.0.0.0/8"'),
        (["client", "add", "x", "--prefix", "pods"], 'write a CIDR, such as "10.244.0.0/16"'),
        (["legacy", "--config", "x", "--serve", "10.0.0.1/8"], 'has host bits set: write "10.0.0.0/8"'),
        (["legacy", "--config", "x", "--serve", "fd00::/64"], "write an IPv4 CIDR"),
    ],
)
def test_a_network_on_the_command_line_is_held_to_the_same_rules(monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(sys, "argv", ["gtund", *arguments])
    with pytest.raises(SystemExit, match=r"^2$"):
        gtund.main()
    assert says in capsys.readouterr().err
