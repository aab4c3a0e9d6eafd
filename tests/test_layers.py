"""Who may import whom, and why: read from the sources, so that a rule is broken in the test and not in the field.

Every rule is a table of {what: why}; a failure prints the file, the line's import and the reason.
"""

from __future__ import annotations

import ast
import fnmatch
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("api", "appliance", "cloud", "tests")

# (files, what they must not import, why). A file is named by its module; `*` matches dots, too.
FORBIDDEN: Final = (
    ("api.*", "tests", "what is installed does not hold the tests"),
    ("appliance.*", "tests", "what is installed does not hold the tests"),
    ("cloud.*", "tests", "what is installed does not hold the tests"),
    ("appliance.*", "api", "arrows go api -> appliance -> cloud, never back"),
    ("cloud.*", "api", "arrows go api -> appliance -> cloud, never back"),
    ("cloud.*", "appliance", "arrows go api -> appliance -> cloud, never back"),
    ("appliance.tunnel.*", "cloud", "the data plane runs without a cloud, and on machines that are in none"),
    ("api.*", "cloud.emulator", "an appliance must never talk to a cloud that is not there"),
    ("appliance.*", "cloud.emulator", "an appliance must never talk to a cloud that is not there"),
    ("cloud.[!e]*", "cloud.emulator", "an appliance must never talk to a cloud that is not there"),
)

# {what: (who alone may import it, why)}
RESERVED: Final = {
    "pyroute2": (
        ("appliance.kernel.*", "cloud.emulator.router", "tests.*"),
        "it is untyped, and netlink has one place in each program",
    ),
    "iptc": (
        ("appliance.kernel.shapes", "appliance.kernel.xtables", "tests.appliance.kernel.*"),
        "it is untyped, keeps global state in C, and holds no lock of its own",
    ),
    "aliyunsdkcore": (("cloud.aliyun", "tests.cloud.*"), "it logs signed URLs: one file keeps them in"),
    "aliyunsdkvpc": (("cloud.aliyun", "tests.cloud.*"), "it logs signed URLs: one file keeps them in"),
    "fastapi": (("api.*", "tests.*"), "HTTP has one place"),
    "typer": (("api.cli", "api.commands.*", "tests.*"), "the command line has one place"),
}

# What decides is pure: it takes values and returns values, so that every case can be tried without a machine.
PURE: Final = (
    "appliance.model",
    "appliance.reconcile",
    "appliance.guard",
    "appliance.status",
    "appliance.verdict",
    "appliance.explain",
    "appliance.traffic",
    "appliance.timing",
    "api.limits",
    "appliance.desired",
    "appliance.forwardtalk",
    "appliance.kernel.state",
    "appliance.tunnel.frame",
    "appliance.tunnel.messages",
    "appliance.tunnel.session",
    "appliance.tunnel.startup",
    "appliance.tunnel.token",
    "appliance.tunnel.virtio",
    "appliance.tunnel.liveness",
    "appliance.tunnel.backoff",
    "cloud.provider",
    "cloud.emulator.world",
)
IMPURE: Final = {
    "socket": "a pure module touches no network",
    "ssl": "a pure module touches no network",
    "select": "a pure module waits for nothing",
    "selectors": "a pure module waits for nothing",
    "asyncio": "a pure module waits for nothing",
    "threading": "a pure module waits for nothing",
    "subprocess": "a pure module starts nothing",
    "time": "a pure module is told what time it is",
    "os": "a pure module does not know the machine",
    "sqlite3": "a pure module keeps nothing",
    "logging": "a pure module returns what there is to say",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, Path]:
    return {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


SOURCES: Final = sources()


def imports(path: Path) -> set[str]:
    """Return every module that a file imports anywhere in it, also late or only for types."""
    package = path.parent.relative_to(ROOT).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*above, *([node.module] if node.module else [])))
            found |= {origin} | {f"{origin}.{name.name}" for name in node.names}
    return found


def below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def matches(module: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(module, pattern) or fnmatch.fnmatchcase(module, pattern.removesuffix(".*"))


@pytest.mark.parametrize(("files", "target", "why"), FORBIDDEN, ids=lambda value: str(value)[:40])
def test_arrows_go_one_way(files: str, target: str, why: str) -> None:
    wrong = [
        f"{module} imports {name}: {why}"
        for module, path in SOURCES.items()
        if matches(module, files)
        for name in imports(path)
        if below(name, target)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("target", RESERVED)
def test_a_library_has_its_one_place(target: str) -> None:
    allowed, why = RESERVED[target]
    wrong = [
        f"{module} imports {name}, which only {', '.join(allowed)} may: {why}"
        for module, path in SOURCES.items()
        if not any(matches(module, pattern) for pattern in allowed)
        for name in imports(path)
        if below(name, target)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", PURE)
def test_what_decides_is_pure(module: str) -> None:
    wrong = [
        f"{module} imports {name}: {why}"
        for name in imports(SOURCES[module])
        for target, why in IMPURE.items()
        if below(name, target)
    ]
    assert not wrong, "\n".join(wrong)


def reachable(start: str) -> dict[str, str]:
    """Return every module of ours that `start` can come to import, each with who imports it."""
    found, todo = {start: ""}, [start]
    while todo:
        module = todo.pop()
        for name in imports(SOURCES[module]):
            if name in SOURCES and name not in found:
                found[name] = module
                todo.append(name)
    return found


@pytest.mark.parametrize(
    "program", ["api.serve", "api.cli", "appliance.forwardd", "appliance.tunnel.gtun", "appliance.tunnel.gtund"]
)
def test_no_program_can_reach_the_emulator_or_the_tests(program: str) -> None:
    found = reachable(program)
    wrong = [
        f"{name}, by way of {by}" for name, by in found.items() if below(name, "cloud.emulator") or below(name, "tests")
    ]
    assert not wrong, f"{program} comes to import {wrong}: it would take the test world for the real one"


@pytest.mark.parametrize("program", ["appliance.tunnel.gtun", "appliance.tunnel.gtund"])
def test_the_tunnel_ends_run_alone(program: str) -> None:
    ours = {"appliance", "appliance.tunnel", "appliance.notify"}
    wrong = [f"{name}, by way of {by}" for name, by in reachable(program).items() if name not in ours]
    wrong = [text for text in wrong if not text.startswith("appliance.tunnel.")]
    assert not wrong, f"{program} comes to import {wrong}: both ends are usable alone, as the originals are"


def test_the_privileged_program_knows_no_network_service() -> None:
    found = reachable("appliance.forwardd")
    outside = ("api", "cloud.aliyun", "cloud.metadata")
    wrong = [f"{name}, by way of {by}" for name, by in found.items() if any(below(name, each) for each in outside)]
    assert not wrong, f"nexthop-forward comes to import {wrong}: what may change the kernel takes no order from outside"
