from __future__ import annotations

import io
import logging

import pytest

from appliance.log import OneLine, install


def written(record: logging.LogRecord) -> str:
    return OneLine("%(levelname)s %(name)s: %(message)s").format(record)


def record(text: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "api.test", "levelname": "INFO", "msg": text, "args": arguments})
    vars(made).update(extra)
    return made


def test_fields_follow_the_text() -> None:
    assert written(record("link %s joined", "hk", link="hk")) == "INFO api.test: link hk joined link=hk"


def test_a_message_stays_one_line() -> None:
    line = written(record("said %s", "x\nERROR api: forged\x1b[2J"))
    assert "\n" not in line
    assert "\x1b" not in line


def test_a_mistake_of_ours_keeps_its_trace() -> None:
    try:
        int("inside")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (ValueError, error, error.__traceback__)
    assert written(made).startswith("INFO api.test: failed\nTraceback")


@pytest.mark.parametrize("verbose", [False, True])
def test_libraries_are_not_heard_below_warnings(verbose: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level, ours = root.level, {name: logging.getLogger(name).level for name in ("api", "appliance", "cloud")}
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    try:
        root.handlers = []
        install(verbose=verbose)
        logging.getLogger("pyroute2.netlink").debug("a netlink message")
        logging.getLogger("urllib3").info("a signed URL")
        logging.getLogger("api.x").info("ours")
        logging.getLogger("api.x").debug("in detail")
    finally:
        root.handlers = before
        root.setLevel(level)
        for name, was in ours.items():
            logging.getLogger(name).setLevel(was)
    assert stream.getvalue().splitlines() == ["INFO api.x: ours"] + ["DEBUG api.x: in detail"] * verbose
