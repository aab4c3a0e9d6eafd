"""What holds for every test of the cloud: the SDK's connections end with the test that made them.

The SDK leaves them to the garbage collector, which warns of each, in whatever test is running then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aliyunsdkcore.client import AcsClient

from cloud import aliyun


@pytest.fixture(autouse=True)
def _no_connection_outlives_its_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[AcsClient] = []

    def noted(**options: Any) -> AcsClient:
        made.append(AcsClient(**options))
        return made[-1]

    monkeypatch.setattr(aliyun, "AcsClient", noted)
    yield
    for client in made:
        client.session.close()
