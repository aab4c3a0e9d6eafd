"""A first boot may be repeated at every step, and ends with the machine in its role and the token gone."""

from __future__ import annotations

import json
import stat

import pytest

from api.client import NotRunning, Refused
from api.firstboot import UNITS, NotYet, Place, Unusable, from_file
from appliance.firstboot import Role
from tests.appliance.test_firstboot import TOKEN

DOCUMENT = f"role: appliance\nlinks: {{hk: {TOKEN}}}\ncidrs: [10.244.0.0/16]\ncloud: {{provider: none}}\n"


class Daemon:
    """Answers from a list: a code to refuse with, or an exception; what it took is in `taken`."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.taken: list[tuple[str, object]] = []

    def get(self, target: str) -> object:
        return self.request("GET", target)[1]

    def request(self, method: str, target: str, body: object = None) -> tuple[int, object]:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if method != "GET":
            self.taken.append((target, body))
        return 201, {}


def refusal(status: int, code: str) -> Refused:
    reasons = [{"code": code, "text": f"text of {code}", "next_step": "do this"}]
    return Refused({"status": status, "code": code, "detail": code, "reasons": reasons})


@pytest.fixture
def place(tmp_path):
    called = tmp_path / "called"
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f'#!/bin/sh\necho "$@" >>{called}\n[ ! -e {tmp_path}/refuse ] || {{ echo no such unit >&2; exit 1; }}\n'
    )
    systemctl.chmod(0o755)
    made = Place(tmp_path / "etc", (str(systemctl),))
    made.etc.mkdir()
    made.document.write_text(DOCUMENT)
    return made


def called(place: Place) -> str:
    return (place.etc.parent / "called").read_text()


def test_it_writes_starts_joins_adds_and_forgets_the_token(place) -> None:
    daemon = Daemon()
    said = list(from_file(place, daemon, patience=5))
    assert daemon.taken == [
        ("/v1/links", {"name": "hk", "token": TOKEN}),
        ("/v1/cidrs", {"cidr": "10.244.0.0/16"}),
    ]
    assert (place.etc / "nexthop.toml").read_text() == '[cloud]\n"provider" = "none"\n'
    assert stat.S_IMODE((place.etc / "nexthop.toml").stat().st_mode) == 0o644
    assert place.role.read_text() == "appliance\n"
    units = " ".join(UNITS[Role.APPLIANCE])
    assert called(place).splitlines() == [f"enable {units}", f"start {units}"]
    assert not place.document.exists()
    assert TOKEN not in json.dumps(said) + called(place)


def test_a_daemon_that_takes_its_time_is_waited_for(place) -> None:
    slow = Daemon(NotRunning({"detail": "not yet"}), refusal(503, "not-ready"))
    list(from_file(place, slow, patience=5))
    assert len(slow.taken) == 2


def test_a_cidr_that_has_to_wait_for_the_clouds_answer_is_asked_for_again(place) -> None:
    daemon = Daemon(None, None, refusal(503, "vpc-unknown"), refusal(503, "vpc-unknown"))
    assert "added 10.244.0.0/16" in list(from_file(place, daemon))
    assert [target for target, _ in daemon.taken] == ["/v1/links", "/v1/cidrs"]


def test_one_that_never_answers_leaves_everything_for_the_next_try(place) -> None:
    with pytest.raises(NotYet):
        list(from_file(place, Daemon(*[NotRunning({"detail": "nobody listens"})] * 50), patience=0.1))
    assert place.document.exists()
    assert not place.role.exists()
    list(from_file(place, Daemon(), patience=5))
    assert place.role.exists()


def test_a_link_that_an_earlier_try_joined_is_no_error(place) -> None:
    daemon = Daemon(None, refusal(409, "link-exists"))
    list(from_file(place, daemon, patience=5))
    assert daemon.taken == [("/v1/cidrs", {"cidr": "10.244.0.0/16"})]


def test_a_cidr_that_the_daemon_refuses_is_told_with_its_reason(place) -> None:
    with pytest.raises(Unusable, match="text of would-loop -> do this"):
        list(from_file(place, Daemon(None, None, refusal(422, "would-loop")), patience=5))
    assert place.document.exists()


def test_a_unit_that_does_not_start_is_for_another_try(place) -> None:
    (place.etc.parent / "refuse").touch()
    with pytest.raises(NotYet, match="no such unit"):
        list(from_file(place, Daemon(), patience=5))


@pytest.mark.parametrize(("text", "complaint"), [(None, "nexthop setup"), ("role: x", "role is missing or unknown")])
def test_a_document_that_will_not_do_starts_nothing(place, text, complaint) -> None:
    place.document.unlink()
    if text is not None:
        place.document.write_text(text)
    with pytest.raises(Unusable, match=complaint):
        list(from_file(place, Daemon(), patience=5))
    assert not (place.etc.parent / "called").exists()


def test_a_far_end_has_no_daemon_to_ask(place) -> None:
    place.document.write_text("role: gtund\nserver: {public: 'a:1'}\ntunnel: {serve: [10.0.0.0/8]}\n")
    list(from_file(place, Daemon(NotRunning({"detail": "none"})), patience=0.1))
    assert called(place).splitlines() == ["enable gtund.service", "start gtund.service"]
    assert place.role.read_text() == "gtund\n"
