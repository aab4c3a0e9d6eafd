"""What runs on the lab's machines, as configuration files and command lines. Nothing is started here.

`run` and `state` directories lie below the lab's own, so two labs share nothing and this machine's /etc, /run and
/var/lib are never touched.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tests.lab import topology as net
from tests.lab.space import PYTHON

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GTUND_PORT: Final = 9443
API_PORT: Final = 8443
REGION: Final = "cn-shenzhen"
INSTANCE: Final = "i-nexthop"
TABLE: Final = "vtb-system"
MORE_TABLE: Final = "vtb-more"
LINK: Final = "hk"
WATCHDOG: Final = 30.0  # seconds, as in the image's units
ACCESS_KEY: Final = ("LTAI-lab-operator", "lab-operator-secret")


def world(settle_ms: int = 100, quota: int = 200, user_data: str = "", public_key: str = "") -> str:
    """Return the emulator's world.toml: the Shenzhen VPC of the drawing.

    `quota`: custom entries of a table; `user_data`, `public_key`: what the appliance was started with.
    """
    return (
        f"""\
region = "{REGION}"
settle_ms = {settle_ms}
quota = {quota}

[listen]
api = "{net.CLOUD_API}:80"
metadata = "{net.METADATA}:80"

[[access_key]]
id = "{ACCESS_KEY[0]}"
secret = "{ACCESS_KEY[1]}"

[role]
name = "nexthop"

[vpc]
id = "vpc-shenzhen"
cidr = "172.18.0.0/16"

[[route_table]]
id = "{TABLE}"
type = "System"

[[route_table]]
id = "{MORE_TABLE}"

[[vswitch]]
id = "vsw-more"
cidr = "172.18.3.0/24"
zone = "{REGION}-a"
table = "{MORE_TABLE}"
interface = "vsw-more"

[[vswitch]]
id = "vsw-hosts"
cidr = "172.18.1.0/24"
zone = "{REGION}-a"
table = "{TABLE}"
interface = "vsw-hosts"

[[vswitch]]
id = "vsw-app"
cidr = "172.18.2.0/24"
zone = "{REGION}-b"
table = "{TABLE}"
interface = "vsw-app"

[[instance]]
id = "{INSTANCE}"
ip = "{net.APPLIANCE}"
vswitch = "vsw-app"
eni = "eni-nexthop"
mac = "{net.MAC["appliance"]}"
role = true
eip = "{net.APPLIANCE_EIP}"
user_data = {json.dumps(user_data)}
public_key = {json.dumps(public_key)}
"""
        + "".join(
            f"""
[[instance]]
id = "i-{host}"
ip = "{address}"
vswitch = "{net.VSWITCH[host]}"
eni = "eni-{host}"
mac = "{net.MAC[host]}"
"""
            for host, address in net.HOSTS.items()
        )
        + f"""
[router]
kernel = true
internet_interface = "{net.INTERNET}"
internet_gateway = "{net.INTERNET_GATEWAY}"
"""
    )


def nexthop_toml(directory: Path, *, firewall: str = "iptables", quota: int = 200, inbound: Sequence[str] = ()) -> str:
    """Return the appliance's nexthop.toml. `quota`: what it takes a route table to hold; `inbound`: names of links."""
    return f"""\
[paths]
state = "{directory}/state"
run = "{directory}/run"

[api]
group = "root"
listen = "0.0.0.0:{API_PORT}"

[kernel]
firewall = "{firewall}"
inbound = {json.dumps(list(inbound))}

[cloud]
provider = "aliyun"
endpoint = "{net.CLOUD_API}"
protocol = "http"
metadata = "http://{net.METADATA}"
resync_seconds = 2
credentials = "role"
route_quota = {quota}
"""


def gtund_toml(directory: Path, *more: str, listen: str = "0.0.0.0", public: str = net.GTUND_EIP) -> str:
    """Return the far end's gtund.toml; it serves `more` than the pods and the service."""
    serve = ", ".join(f'"{cidr}"' for cidr in (net.POD_CIDR, net.SERVICE_CIDR, *more))
    return f"""\
[server]
listen = "{listen}:{GTUND_PORT}"
public = "{public}:{GTUND_PORT}"
state = "{directory}/state"
run = "{directory}/run"

[tunnel]
subnet = "{net.TUNNEL}"
gateway = "{net.TUNNEL_GATEWAY}"
first = "100.64.240.50"
snat = true
serve = [{serve}]
"""


def nginx_conf(directory: Path, pod: str) -> str:
    """Return the configuration of one pod's nginx; its page names the pod."""
    scratch = "\n".join(
        f"    {kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
{scratch}
    access_log off;
    server {{
        listen {net.PODS[pod]}:80;
        root {directory}/html;
        add_header X-Pod {pod};
    }}
}}
"""


def emulator(directory: Path) -> tuple[str, ...]:
    """Return the emulator's command line."""
    return (*PYTHON, "cloud.emulator", "--config", f"{directory}/world.toml")


def gtund(directory: Path, *command: str) -> tuple[str, ...]:
    """Return a gtund command line: `run`, or `client add NAME` and its like."""
    return (*PYTHON, "appliance.tunnel.gtund", *command, "--config", f"{directory}/gtund.toml")


def nexthop(directory: Path, *command: str) -> tuple[str, ...]:
    """Return an operator's command line."""
    return (*PYTHON, "api.cli", "--socket", f"{directory}/run/nexthopd.sock", *command)


def capable(*capabilities: str) -> tuple[str, ...]:
    """Return what runs a command with these capabilities and no others, as the image's units do.

    Root's name is kept, since this tree may lie where nobody else can read; but root without a capability may do no
    more to the kernel than anybody.
    """
    few = ",".join(["-all", *(f"+{capability}" for capability in capabilities)])
    return ("setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={few}")


FORWARD_MAY: Final = ("net_admin", "net_raw")


def forward(directory: Path, *program: str) -> tuple[str, ...]:
    """Return the command line of nexthop-forward; `program`: what runs in its place."""
    started = program or (*PYTHON, "appliance.forwardd")
    return (*capable(*FORWARD_MAY), *started, "--config", f"{directory}/nexthop.toml")


def nexthopd(directory: Path, *program: str) -> tuple[str, ...]:
    """Return the command line of nexthopd, which has no capability at all; `program`: what runs in its place."""
    return (*capable(), *(program or (*PYTHON, "api.serve")), "--config", f"{directory}/nexthop.toml")


def appliance_units(directory: Path) -> str:
    """Return what runs on the appliance, for the supervisor: the two daemons, and a gtun for every link file."""
    plan: dict[str, Any] = {
        "units": {
            "nexthop-forward": {"argv": forward(directory), "watchdog": WATCHDOG},
            "nexthopd": {"argv": nexthopd(directory), "after": ["nexthop-forward"], "watchdog": WATCHDOG},
        },
        "template": {
            "name": "gtun@{stem}",
            "glob": f"{directory}/state/links/*.toml",
            "argv": [
                *(*PYTHON, "appliance.tunnel.gtun", "--verbose"),
                *("--config", "{path}", "--control", f"{directory}/run/links/{{stem}}.sock"),
            ],
        },
    }
    return json.dumps(plan, indent=1)


def gtund_units(directory: Path) -> str:
    """Return what runs on the far end."""
    return json.dumps({"units": {"gtund": {"argv": gtund(directory, "run")}}}, indent=1)
