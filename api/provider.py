"""Which cloud the configuration names: the one place where a provider is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.attract import Connect
    from appliance.config import CloudConfig
    from cloud.provider import Provider
    from cloud.tally import Tally


def provider_of(cloud: CloudConfig, calls: Tally | None = None) -> Connect | None:
    """Return what finds the cloud, None where none is configured. The SDK is imported when it is first asked."""
    if cloud.provider == "none":
        return None

    async def connect() -> Provider:
        from cloud.aliyun import connect as aliyun  # noqa: PLC0415
        from cloud.choice import Choice, Tag  # noqa: PLC0415
        from cloud.provider import Quota  # noqa: PLC0415

        return await aliyun(
            endpoint=cloud.endpoint,
            protocol=cloud.protocol,
            metadata=cloud.metadata,
            choice=Choice(cloud.route_tables, Tag.parse(cloud.route_table_tag) if cloud.route_table_tag else None),
            appliance_id=cloud.appliance_id,
            epoch=cloud.epoch,
            credentials=cloud.credentials,
            quota=Quota(cloud.route_quota, cloud.route_reserve),
            tally=calls,
        )

    return connect
