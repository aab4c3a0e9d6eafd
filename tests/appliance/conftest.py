"""Every store that a test opens is closed with it: Python 3.13 warns of one that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from appliance.intent import IntentStore

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _stores_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened: list[IntentStore] = []
    begin = IntentStore.__init__

    def tracked(store: IntentStore, *args: Any, **options: Any) -> None:
        opened.append(store)
        begin(store, *args, **options)

    monkeypatch.setattr(IntentStore, "__init__", tracked)
    yield
    for store in opened:
        if hasattr(store, "_open"):  # it came to be
            store.close()
