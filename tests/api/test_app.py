from __future__ import annotations

from .conftest import Appliance


def test_every_endpoint_is_described(appliance: Appliance) -> None:
    document = appliance.daemon.get("/v1/openapi.json")
    assert document["openapi"].startswith("3.1")
    assert {path: sorted(methods) for path, methods in document["paths"].items()} == {
        "/v1/cidrs": ["get", "post"],
        "/v1/history": ["get"],
        "/v1/cidrs/{cidr}": ["delete", "get", "patch", "put"],
        "/v1/cidrs/{cidr}/adopt": ["post"],
        "/v1/doctor": ["get"],
        "/v1/plan": ["get"],
        "/v1/ram-policy": ["get"],
        "/v1/strays/{cidr}": ["delete"],
        "/v1/links": ["get", "post"],
        "/v1/links/{name}": ["delete"],
        "/v1/links/{name}/key": ["put"],
        "/v1/restore": ["post"],
        "/v1/events": ["get"],
        "/v1/explain/{ip}": ["get"],
        "/v1/routes": ["get"],
        "/v1/session": ["get"],
        "/v1/tokens": ["get", "post"],
        "/v1/tokens/{name}": ["delete"],
        "/v1/traffic": ["get"],
        "/v1/status": ["get"],
        "/livez": ["get"],
        "/metrics": ["get"],
        "/v1/support-bundle": ["get"],
        "/readyz": ["get"],
    }
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["description"]
    assert "application/problem+json" in document["paths"]["/v1/cidrs"]["post"]["responses"]["409"]["content"]
