"""A thin, asynchronous door to the API server over the official client: JSON in, JSON out.

The generated models of the client are left aside: the objects here are custom ones, or any kind
with a scale subresource, and a dictionary says it all.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

Object = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"

TIMEOUT_SECONDS = 10.0
"""Longest that one request may take; the loop comes round again."""

LEAST_SECONDS = 1.0
"""A write that has less time than that does not begin."""


class NotLeaderError(OSError):
    """Nothing was written: another process may be the leader by now (``controller/lease.py``)."""


class KubeError(Exception):
    """The API server said no. ``status`` is the HTTP status, ``message`` its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        return self.status == 409

    @property
    def refused(self) -> bool:
        """Whether asking again would give the same answer: invalid, forbidden, or refused by an
        admission webhook."""
        return self.status in (400, 403, 404, 405, 422)


@dataclass(frozen=True, slots=True)
class Resource:
    """How a kind is addressed: ``apps/v1`` + ``deployments``."""

    api_version: str
    plural: str
    scalable: bool

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The URL path of a collection, an object or its subresource."""
        root = "/apis/" if "/" in self.api_version else "/api/"
        parts = [root + self.api_version, "namespaces", namespace, self.plural, name, subresource]
        return "/".join(part for part in parts if part)


class Kube:
    """Requests to one API server. Use as an asynchronous context manager. ``fence`` gives the
    seconds that are left for a write to end in; without it writes have the time of any request."""

    def __init__(self, api: client.ApiClient) -> None:
        self.fence: Callable[[], float] | None = None
        self._api = api
        self._kinds: dict[tuple[str, str], Resource | None] = {}

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Kube:
        """From the service account inside a cluster, else from the kubeconfig file. Raises
        ``kubernetes.aio.config.ConfigException`` where there is neither."""
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
        settings.connection_pool_maxsize = 100
        return cls(client.ApiClient(settings))

    async def __aenter__(self) -> Kube:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        seconds: float = TIMEOUT_SECONDS,
    ) -> Object:
        """One request. Raises ``KubeError`` for an answer that is not a success, OSError or
        TimeoutError where there is no answer, and of these ``NotLeaderError`` where a write was not
        even begun."""
        if self.fence is not None and method != "GET":
            seconds = min(seconds, self.fence())
            if seconds < LEAST_SECONDS:
                raise NotLeaderError("not written: the lease could not be renewed in time")
            # The API server gives up by then as well, rather than to carry it out late.
            query = {**(query or {}), "timeout": f"{seconds:.1f}s"}
        serialized = await self._api.param_serialize(
            method=method,
            resource_path=path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._api.call_api(*serialized, _request_timeout=seconds)
            data = await response.read()
        except ApiException as error:
            raise KubeError(error.status or 0, str(error.body or error.reason)) from None
        if not 200 <= response.status < 300:
            raise KubeError(response.status, _message(data))
        document: Object = json.loads(data) if data else {}
        return document

    async def lines(
        self, path: str, query: Mapping[str, str], silence: float
    ) -> AsyncGenerator[bytes, None]:
        """Lines of an answer that goes on, each with its newline, until its end. Raises
        ``KubeError`` for an answer that is not a success, OSError where the connection broke,
        TimeoutError after ``silence`` seconds without a word, ValueError for too long a line."""
        serialized = await self._api.param_serialize(
            method="GET",
            resource_path=path,
            query_params=list(query.items()),
            header_params={"Accept": "*/*"},
            auth_settings=["BearerToken"],
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=silence)
        response = None
        try:
            response = (await self._api.call_api(*serialized, _request_timeout=timeout)).response
            if response.status != 200:
                raise KubeError(response.status, _message(await response.read()))
            while line := await response.content.readline():
                yield line
        except ApiException as error:
            raise KubeError(error.status or 0, str(error.body or error.reason)) from None
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error) or type(error).__name__) from None
        finally:
            if response is not None:
                response.close()

    async def get(self, path: str, **query: str) -> Object:
        """GET of an object or of a collection."""
        return await self.request("GET", path, query=query)

    async def create(self, path: str, body: Object) -> Object:
        """POST of a new object into a collection."""
        return await self.request("POST", path, body)

    async def patch(self, path: str, body: object, content_type: str = MERGE_PATCH) -> Object:
        """PATCH, by default a merge patch."""
        return await self.request("PATCH", path, body, content_type=content_type)

    async def delete(self, path: str, uid: str, version: str) -> None:
        """DELETE of an object of this uid and resource version; one that is gone already, or is
        another one by now, is left alone without an error."""
        preconditions = {"uid": uid, "resourceVersion": version}
        try:
            await self.request("DELETE", path, {"preconditions": preconditions})
        except KubeError as error:
            if not (error.not_found or error.conflict):
                raise

    async def resource(self, api_version: str, kind: str) -> Resource | None:
        """How a kind is addressed here, or None where this cluster does not have it."""
        key = (api_version, kind)
        if self._kinds.get(key) is None:
            root = "/apis/" if "/" in api_version else "/api/"
            try:
                listed = (await self.get(root + api_version)).get("resources", [])
            except KubeError as error:
                if not error.not_found:
                    raise
                listed = []
            names = {item["name"]: item for item in listed}
            self._kinds[key] = next(
                (
                    Resource(api_version, name, f"{name}/scale" in names)
                    for name, item in names.items()
                    if item["kind"] == kind and "/" not in name and item.get("namespaced")
                ),
                None,
            )
        return self._kinds[key]


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data).get("message", ""))
    except (ValueError, AttributeError):
        return data[:200].decode(errors="replace")
