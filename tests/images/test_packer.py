"""packer.json and the scripts beside it: what can be known of them without building anything."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.images.build import ROOT, dummies

SCRIPTS = sorted((ROOT / "images").glob("*.sh")) + sorted((ROOT / "images" / "files" / "libexec").iterdir())
# Known to Debian 12's Packer 1.6.6 and to the plugins of a current one: hashicorp/alicloud 1.1.2, hashicorp/qemu 1.1.
FIELDS = {
    "alicloud-ecs": {
        *("type", "access_key", "secret_key", "region", "zone_id", "source_image", "instance_type", "instance_name"),
        *("image_name", "image_description", "io_optimized", "internet_charge_type", "internet_max_bandwidth_out"),
        *("system_disk_mapping", "ssh_username", "ssh_timeout", "ssh_clear_authorized_keys", "tags"),
    },
    "qemu": {
        *("type", "accelerator", "headless", "disk_image", "iso_url", "iso_checksum", "disk_size", "disk_interface"),
        *("net_device", "format", "disk_compression", "disk_discard", "disk_detect_zeroes", "memory", "cpus"),
        *("http_directory", "qemuargs", "boot_wait", "ssh_username", "ssh_password", "ssh_timeout"),
        *("shutdown_command", "output_directory", "vm_name"),
    },
}


def template() -> dict[str, Any]:
    return dict(json.loads((ROOT / "packer.json").read_text()))


@pytest.mark.skipif(shutil.which("packer") is None, reason="PACKER IS NOT INSTALLED (Debian 13 has none)")
def test_packer_takes_the_template_on_a_clean_clone_without_a_network(tmp_path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--no-local", str(ROOT), str(clone)], check=True)
    for path in ("packer.json", "images"):  # as they are now, committed or not
        target = clone / path
        if target.is_dir():
            shutil.rmtree(target)
            shutil.copytree(ROOT / path, target)
        else:
            shutil.copy(ROOT / path, target)
    alone = ["unshare", "--net"] if os.geteuid() == 0 else []
    environment = {**os.environ, **dummies(), "NEXTHOP_BUILD_PASSWORD": "of-no-use-00000", "HOME": str(tmp_path)}
    done = subprocess.run(
        [*alone, "packer", "validate", "packer.json"],
        cwd=clone,
        env=environment | {"CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_fields_that_every_packer_since_knows() -> None:
    for builder in template()["builders"]:
        assert set(builder) <= FIELDS[builder["type"]]


def test_secrets_come_from_the_environment_alone_and_every_default_is_there() -> None:
    found = template()
    secret = set(found["sensitive-variables"])
    for name, default in found["variables"].items():
        assert default is not None
        assert default.startswith("{{env `") == (name in secret), name


def test_both_builders_go_through_the_same_provisioners_and_end_sealed() -> None:
    provisioners = template()["provisioners"]
    assert not any({"only", "except", "override"} & set(each) for each in provisioners)
    assert provisioners[-1]["inline"][-1].endswith("seal.sh")
    generated = [each for each in provisioners if each["type"] == "file" and "user `" in each["source"]]
    assert all(each["generated"] for each in generated)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--severity=warning", str(script)], check=True)


def test_what_provisioning_puts_somewhere_is_there_and_nothing_is_left_out() -> None:
    files = ROOT / "images" / "files"
    text = (ROOT / "images" / "provision.sh").read_text()
    for folder in (path for path in files.iterdir() if path.is_dir()):
        named = folder.name.removesuffix(".conf.d")
        assert re.search(rf"files[\"/].*{re.escape(folder.name)}|for part in .*\b{named}\b", text), folder.name


def test_units_start_what_provisioning_installs() -> None:
    for unit in (ROOT / "images" / "files" / "systemd").glob("*.service"):
        (command,) = re.findall(r"^ExecStart=(\S+)", unit.read_text(), re.MULTILINE)
        assert command.startswith(("/opt/nexthop/bin/", "/usr/local/lib/nexthop/")), unit.name
