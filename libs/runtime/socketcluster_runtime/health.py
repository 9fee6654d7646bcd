"""``python -m socketcluster_runtime.health ADDRESS``: is the service there well? For compose's health checks.

The address is a gRPC one (``127.0.0.1:7000``, ``unix:/path``), asked by the standard health protocol with the secret
of the environment, or a URL, which must answer 200. Exit status 0: it serves; 1: it does not, with the reason.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from typing import ClassVar

import grpc
from grpc_health.v1 import health_pb2
from pydantic_settings import SettingsConfigDict

from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.rpc import credentials
from socketcluster_runtime.settings import ServiceSettings

TIMEOUT = 3.0
"""Seconds that a service has to answer."""


class HealthSettings(ServiceSettings):
    """Only the secret is used; the options of the service whose environment this runs in are not looked at."""

    model_config = SettingsConfigDict(extra="ignore")
    service: ClassVar[str] = "health check"


def check(address: str, secret: str | None) -> str | None:
    """Return ``None`` if the service at ``address`` is well, otherwise a line that says why not."""
    if address.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT):  # noqa: S310  # the caller names the scheme
                return None
        except (OSError, urllib.error.URLError) as error:
            return str(error)
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = ask(
                health_pb2.HealthCheckRequest(), timeout=TIMEOUT, metadata=credentials(secret) if secret else None
            )
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return None if serving else health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def main() -> None:
    """Check the service named on the command line and exit."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    address = sys.argv[1]
    try:
        secret = None if address.startswith("http") else HealthSettings().shared_secret()
    except SettingsError as error:
        sys.exit(str(error))
    problem = check(address, secret)
    sys.exit(problem and f"{address}: {problem}")


if __name__ == "__main__":
    main()
