"""The one door to the API server, with nobody behind it: it notes who asks for what, and answers
from a table. And what the chart lets the asking accounts do, to hold the two against each other."""

from __future__ import annotations

import ast
import copy
import re
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bottleneck_operator
import yaml
from bottleneck_operator.kube import Kube, KubeError, Object

PACKAGE = Path(bottleneck_operator.__file__).parent
TEMPLATES = Path(__file__).parents[2] / "charts" / "bottleneck-operator" / "templates"

Right = tuple[str, str, str]
"""Verb, API group, and resource with its subresource."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the operator's code from which the door is used."""

    file: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.file}:{self.first}"


def sites(*folders: str) -> Iterator[Site]:
    """Every call of a method of the door, found in the source."""
    for folder in folders:
        for file in sorted((PACKAGE / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                holder = ast.unparse(node.func.value)
                asks = node.func.attr in ("get", "create", "patch", "delete", "lines", "request")
                if asks and re.search(r"(^|[._])kube$", holder):
                    name = file.relative_to(PACKAGE).as_posix()
                    yield Site(name, node.lineno, node.end_lineno or node.lineno)


class Recording(Kube):
    """Answers a GET with the object of that path; a KubeError among them is raised."""

    def __init__(self, objects: Mapping[str, Object | KubeError], kinds: Mapping[str, str]) -> None:
        self.objects = dict(objects)
        self.plurals = dict(kinds)
        self.rights: set[Right] = set()
        self.places: set[tuple[str, int]] = set()
        self._kinds = {}

    async def __aenter__(self) -> Recording:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        seconds: float | None = None,
    ) -> Object:
        found = re.fullmatch(r"/(?:api|apis/([^/]+))/(v[^/]+)", path)
        self._note()
        if found:  # discovery: everybody may
            return {"resources": list(self._discovered(f"{found[1]}/{found[2]}"))}
        self.rights.add(right(method, path))
        if method == "DELETE":
            return {}
        answer = self.objects.get(path, {"items": []} if method == "GET" else body)
        whole = self.objects.get(path.removesuffix("/status"))
        if method == "POST" and isinstance(body, dict):
            self.objects[f"{path}/{body['metadata']['name']}"] = body
        elif method == "PATCH" and isinstance(whole, dict) and isinstance(body, dict):
            answer = {**whole, "status": body.get("status", {})}
        if isinstance(answer, KubeError):
            raise answer
        answer = copy.deepcopy(answer)
        if isinstance(answer, dict) and "metadata" in answer:
            answer["metadata"] = {"uid": "u", "resourceVersion": "1", **answer["metadata"]}
        return answer if isinstance(answer, dict) else {}

    async def lines(
        self, path: str, query: Mapping[str, str], silence: float
    ) -> AsyncGenerator[bytes, None]:
        self._note()
        self.rights.add(right("GET", path))
        return
        yield b""

    def _discovered(self, version: str) -> Iterator[Object]:
        for key, plural in self.plurals.items():
            of, _, kind = key.rpartition("/")
            if of == version:
                yield {"name": plural, "kind": kind, "namespaced": True}
                if kind in SCALABLE:
                    yield {"name": f"{plural}/scale", "kind": "Scale", "namespaced": True}

    def _note(self) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None:
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(PACKAGE) and file.name != "kube.py":
                self.places.add((file.relative_to(PACKAGE).as_posix(), frame.f_lineno))
                return
            frame = frame.f_back

    def went_through(self, site: Site) -> bool:
        """Whether a request came from that place."""
        return any(
            file == site.file and site.first <= line <= site.last for file, line in self.places
        )


SCALABLE = ("Deployment", "StatefulSet", "ReplicaSet", "LeaderWorkerSet")


def right(method: str, path: str) -> Right:
    """What RBAC must allow for a request."""
    parts = path.strip("/").split("/")
    group = "" if parts[0] == "api" else parts[1]
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource = "/".join([rest[0], *rest[2:]])
    one = {"GET": "get", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}
    many = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
    return (one if len(rest) > 1 else many)[method], group, resource


def chart_rights(file: str, name: str, kind: str = "ClusterRole") -> set[Right]:
    """The rules of the role whose name ends so, with every optional part."""
    found = set()
    for rule in _role(file, name, kind)["rules"]:
        # By name there are rights only in the operator's own namespace.
        assert kind == "Role" or "resourceNames" not in rule
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    listed = (verb, group, resource)
                    assert listed not in found, f"{listed} is allowed twice"
                    found.add(listed)
    return found


def _role(file: str, name: str, kind: str) -> dict[str, Any]:
    text = (TEMPLATES / file).read_text()
    text = re.sub(r"\{\{-? ?/\*.*?\*/ ?-?\}\}", "", text, flags=re.DOTALL)
    # A line of nothing but template is logic; within a line it stands for a text.
    text = re.sub(r"^\s*\{\{[^\n]*\}\}\s*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\{\{.*?\}\}", "x", text)
    for document in yaml.safe_load_all(text):
        if document and document["kind"] == kind and document["metadata"]["name"] == name:
            return dict(document)
    raise AssertionError(f"{file} has no {kind} {name}")
