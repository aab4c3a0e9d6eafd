"""A spoiled wheel is a wheel still, and has the fault that it is to have."""

from __future__ import annotations

import asyncio
import zipfile
from typing import Any

import pytest

from appliance.release import read_wheel
from tests.appliance.test_release import wheel
from tests.images.faults import Fault, spoiled

APP = """
def create_app(parts):
    async def app(scope, receive, send):
        await send({"answered": scope["type"]})
    return app
"""


def sound(tmp_path):
    path = wheel(tmp_path, "1.0")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("api/app.py", APP)
    return path


def create_app(path) -> Any:
    names: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        exec(archive.read("api/app.py"), names)
    return names["create_app"]


def answers(app: Any, kind: str) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    asyncio.run(app({"type": kind}, None, send))
    return said


def test_each_is_another_release(tmp_path) -> None:
    path = sound(tmp_path)
    made = [read_wheel(path).release] + [
        read_wheel(spoiled(path, tmp_path / fault.name, fault)).release for fault in Fault
    ]
    assert len(set(made)) == len(made)


def test_one_does_not_start(tmp_path) -> None:
    path = spoiled(sound(tmp_path), tmp_path / "spoiled", Fault.DOES_NOT_START)
    with pytest.raises(RuntimeError):
        create_app(path)(None)


def test_one_starts_and_answers_nothing_but_errors(tmp_path) -> None:
    app = create_app(spoiled(sound(tmp_path), tmp_path / "spoiled", Fault.UNWELL))(None)
    assert answers(app, "lifespan") == [{"answered": "lifespan"}]
    assert answers(app, "http")[0]["status"] == 500
