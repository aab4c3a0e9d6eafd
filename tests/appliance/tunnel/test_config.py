import pytest

from appliance.tunnel.config import ConfigError, host_and_port, read_gtund, read_link

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
        (LINK.replace('"hk"', "5"), "name must be str"),
        (LINK + "connections = 0\n", "1 to 16"),
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
        ("", "serve is missing"),
        ("[tunnel]\nserve = []\n", "serve is empty"),
        ('[tunnel]\nserve = ["10.244.0.1/16"]\n', "host bits"),
        (GTUND + 'gateway = "10.0.0.1"\n', "must lie in subnet"),
        (GTUND + 'snat = "yes"\n', "snat must be bool"),
        (GTUND + '[server]\npublic = "hk.example"\n', "write host:port"),
    ],
)
def test_a_bad_gtund_file_is_refused_with_the_mend(write, text, says):
    with pytest.raises(ConfigError, match=says):
        read_gtund(write(text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml is not there"):
        read_link(tmp_path / "nothing.toml")


def test_an_ipv6_server_stands_in_brackets():
    assert host_and_port("[2001:db8::1]:9443", "server") == ("2001:db8::1", 9443)
