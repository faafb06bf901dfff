"""Where a policy may send the operator: who writes a policy must not reach with the operator's arm
what his own does not reach.

Servers that the operator's own settings name are looked at wherever they are. Where they name none,
a server has to have an address as a cluster's services have: a private one, and neither the
operator's own nor that of a node's metadata. It is the address that is connected to that is looked
at, so that a name cannot mean one thing when it is checked and another when it is used.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NameResolutionError, NewConnectionError

from .pods import never_a_pod

SHARED = ipaddress.ip_network("100.64.0.0/10")
"""Some clusters take their addresses from here (RFC 6598)."""

METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200")))
"""Metadata of cloud machines at addresses that are not link-local: AWS over IPv6, Alibaba Cloud."""


class PrometheusError(Exception):
    """There is no answer, or it is an error; the text says what it is in words for people."""


def named(url: str, allowed: Sequence[str]) -> bool:
    """Whether the operator's settings name the server, or a path above it."""
    scheme, host, path = _parts(url)
    if ".." in path:
        return False
    return any(
        (scheme, host) == (theirs[0], theirs[1]) and path[: len(theirs[2])] == theirs[2]
        for theirs in map(_parts, allowed)
    )


def _parts(url: str) -> tuple[str, str, list[str]]:
    found = urlsplit(url)
    path = [part for part in found.path.split("/") if part not in ("", ".")]
    default = ":443" if found.scheme == "https" else ":80"
    host = found.netloc.lower()
    return found.scheme.lower(), host if host.rpartition(":")[2].isdigit() else host + default, path


def in_a_cluster(text: str) -> bool:
    """Whether an address is as those of a cluster's services are."""
    address = ipaddress.ip_address(text)
    address = getattr(address, "ipv4_mapped", None) or address
    if never_a_pod(address) or address in METADATA:
        return False
    return address.is_private or (address.version == 4 and address in SHARED)


class _Checked:
    """Connects to an address that was looked at, and to no other."""

    def _new_conn(self: Any) -> socket.socket:
        name = self._dns_host
        try:
            found = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            reason = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
            raise NameResolutionError(self.host, self, reason) from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        for address in addresses:
            if not in_a_cluster(address):
                raise PrometheusError(
                    f"is not asked: {address} is no address of a service in this cluster; write"
                    ' the address of one, such as "http://prometheus.monitoring:9090", or let the'
                    " operator's Helm value prometheus.allowedUrls name this url"
                )
        try:
            for address in addresses:
                self._dns_host = address
                try:
                    return super()._new_conn()  # type: ignore[misc, no-any-return]
                except NewConnectionError:
                    if address == addresses[-1]:
                        raise
        finally:
            self._dns_host = name
        raise AssertionError("getaddrinfo gives an address or an error")


class _Http(_Checked, HTTPConnection):
    pass


class _Https(_Checked, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class CheckedAdapter(HTTPAdapter):
    """Of a session that connects to services of the cluster only."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
