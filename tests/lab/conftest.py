"""One lab for all tests that do not break it, built on first use.

SIGTERM is made to end pytest as Ctrl-C does, so that fixtures are taken down; what they missed goes at the very end.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.lab import ground
from tests.lab.lab import Lab
from tests.lab.story import add_cidrs

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_configure() -> None:
    """Let SIGTERM take the fixtures down."""
    ground.interrupt_on(signal.SIGTERM)


def pytest_unconfigure() -> None:
    """Leave nothing, whatever interrupted what."""
    ground.release_own()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root there is no lab."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("lab"):
                item.add_marker(pytest.mark.skip(reason="needs root: it builds network namespaces"))


@pytest.fixture(scope="session")
def bare_lab() -> Iterator[Lab]:
    """Return the two networks with nothing of ours running in them."""
    with Lab.open() as lab:
        lab.start_pods()
        lab.start_cloud()
        yield lab


@pytest.fixture(scope="session")
def joined_lab() -> Iterator[Lab]:
    """Return a lab in which hosts reach the pods and the service. Who uses it leaves it so."""
    with Lab.open() as lab:
        lab.start_all()
        lab.join()
        add_cidrs(lab)
        yield lab
