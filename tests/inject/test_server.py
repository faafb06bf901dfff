"""The webhook over real HTTPS: it answers, refuses no pod, and follows its certificate."""

import asyncio
import base64
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from bottleneck_operator.inject import review as review_module
from bottleneck_operator.inject import server
from bottleneck_operator.inject.pod import InjectSettings

Object = dict[str, Any]

SETTINGS = InjectSettings(image="bottleneck/sidecar:1")


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 under a name of its own."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    how = f"-x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN={name}"
    where = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", *how.split(), *where], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def certificate(tmp_path: Path) -> server.Certificate:
    return server.Certificate(*make_certificate(tmp_path, "first"))


@pytest_asyncio.fixture
async def url(certificate: server.Certificate) -> AsyncIterator[str]:
    runner = web.AppRunner(server.application(SETTINGS))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.context)
    await site.start()
    port = runner.addresses[0][1]
    yield f"https://127.0.0.1:{port}"
    await runner.cleanup()


async def post(url: str, folder: Path, body: bytes) -> tuple[int, str]:
    """Posts to the webhook, trusting the certificate in the folder and no other."""
    trust = ssl.create_default_context(cafile=str(folder / "tls.crt"))
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/mutate", data=body, ssl=trust) as response,
    ):
        return response.status, await response.text()


def request(pod: object) -> bytes:
    return json.dumps(
        {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": "u-1", "namespace": "ml", "object": pod},
        }
    ).encode()


POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "a"}]}}


@pytest.mark.asyncio
async def test_a_pod_is_patched(url: str, tmp_path: Path) -> None:
    status, text = await post(url, tmp_path, request(POD))
    assert status == 200
    answer = json.loads(text)
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = answer["response"]
    assert (response["uid"], response["allowed"]) == ("u-1", True)
    assert response["patchType"] == "JSONPatch"
    paths = [operation["path"] for operation in json.loads(base64.b64decode(response["patch"]))]
    assert "/spec/initContainers" in paths


@pytest.mark.asyncio
@pytest.mark.parametrize("pod", [None, "words", {}, {"spec": {"containers": 7}}])
async def test_what_is_no_pod_is_allowed_with_a_warning(
    url: str, tmp_path: Path, pod: object
) -> None:
    status, text = await post(url, tmp_path, request(pod))
    response = json.loads(text)["response"]
    assert status == 200
    assert response["allowed"] is True
    assert "patch" not in response
    assert "no sidecar is injected" in response["warnings"][0]


@pytest.mark.asyncio
async def test_a_bug_of_ours_refuses_nobody(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Object:
        raise RuntimeError("surprise")

    monkeypatch.setattr(review_module, "inject", broken)
    _, text = await post(url, tmp_path, request(POD))
    response = json.loads(text)["response"]
    assert response["allowed"] is True
    assert "RuntimeError: surprise" in response["warnings"][0]


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"request": {"uid": 7}}', b"\xff"])
async def test_what_is_no_review_is_a_bad_request(url: str, tmp_path: Path, body: bytes) -> None:
    status, text = await post(url, tmp_path, body)
    assert status == 400
    assert text.strip()


@pytest.mark.asyncio
async def test_a_large_review_is_read(url: str, tmp_path: Path) -> None:
    large = POD | {"metadata": {"name": "p", "annotations": {"large": "x" * 2_000_000}}}
    status, _ = await post(url, tmp_path, request(large))
    assert status == 200


@pytest.mark.asyncio
async def test_a_new_certificate_serves_new_connections(
    url: str, tmp_path: Path, certificate: server.Certificate
) -> None:
    assert certificate.refresh() is False, "nothing has changed"
    make_certificate(tmp_path, "second")
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await post(url, tmp_path, request(POD))
    assert certificate.refresh() is True
    assert (await post(url, tmp_path, request(POD)))[0] == 200


@pytest.mark.asyncio
async def test_a_broken_certificate_changes_nothing(
    url: str, tmp_path: Path, certificate: server.Certificate
) -> None:
    key = tmp_path / "tls.key"
    good = key.read_bytes()
    (tmp_path / "other").mkdir()
    _, other = make_certificate(tmp_path / "other", "other")
    for content in (b"", b"half a key", other.read_bytes()):
        key.write_bytes(content)
        assert certificate.refresh() is False
        assert (await post(url, tmp_path, request(POD)))[0] == 200
    key.unlink()
    assert certificate.refresh() is False
    key.write_bytes(good)
    assert (await post(url, tmp_path, request(POD)))[0] == 200


@pytest.mark.asyncio
async def test_it_is_healthy(url: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/healthz", ssl=False) as response,
    ):
        assert response.status == 200


@pytest.mark.asyncio
async def test_it_stops_when_told(certificate: server.Certificate) -> None:
    stop = asyncio.Event()
    serving = asyncio.create_task(
        server.serve(server.application(SETTINGS), certificate, "127.0.0.1", 0, stop)
    )
    stop.set()
    await serving


def test_a_missing_certificate_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        server.main(["--tls-cert", str(tmp_path / "none.crt"), "--tls-key", str(tmp_path / "n")])
    assert caught.value.code == 1
    assert "none.crt" in capsys.readouterr().err
