"""HTTP under prometheus-api-client, stricter than the library's own.

The address comes from a policy. So it is looked at before it is connected to
(``prometheus_address``), an answer is bounded in size and time, a redirect is not followed, nothing
of the operator's environment (proxies, .netrc) goes along, and only what has the form of an answer
of Prometheus is repeated to people.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ReadTimeoutError

from .documents import clean
from .prometheus_address import CheckedAdapter, PrometheusError

DEADLINE_SECONDS = 10.0
"""Longest that one look may take, all its requests together."""

MAX_ANSWER = 32 * 1024 * 1024
"""Longest answer that is read, in bytes."""


class Session(requests.Session):
    """Answers within bounds, or a ``PrometheusError``; ``named`` where the operator's own settings
    name the server."""

    def __init__(self, named: bool = False) -> None:
        super().__init__()
        self._adapter = HTTPAdapter() if named else CheckedAdapter()
        self.trust_env = False
        # A cluster's own authority is named to Python programs by this variable.
        self.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        # Packed, a small answer could become a large one.
        self.headers["Accept-Encoding"] = "identity"
        self.deadline = 0.0

    def get_adapter(self, url: str) -> HTTPAdapter:
        """The one of this session, whatever else was mounted: it tries nothing twice."""
        return self._adapter

    def close(self) -> None:
        super().close()
        self._adapter.close()

    def begin(self) -> None:
        """All requests from now on together have ``DEADLINE_SECONDS``."""
        self.deadline = time.monotonic() + DEADLINE_SECONDS

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise PrometheusError(f"did not answer within {DEADLINE_SECONDS:.0f}s")
        options |= {"stream": True, "allow_redirects": False, "timeout": left}
        try:
            with super().send(request, **options) as response:
                body = self._body(response)
        except (requests.Timeout, ReadTimeoutError):
            raise PrometheusError(f"did not answer within {DEADLINE_SECONDS:.0f}s") from None
        except requests.exceptions.SSLError as error:
            raise PrometheusError(f"has no certificate to trust: {_short(error)}") from None
        except (requests.RequestException, HTTPError) as error:
            raise PrometheusError(f"cannot be reached: {_short(error)}") from None
        if response.status_code != 200:
            raise PrometheusError(_refusal(response.status_code, body))
        response._content = body
        return response

    def _body(self, response: requests.Response) -> bytes:
        body = bytearray()
        # What has come so far, however little: a server that trickles must not hold the thread.
        while chunk := response.raw.read1(64 * 1024, decode_content=False):
            body += chunk
            if len(body) > MAX_ANSWER:
                raise PrometheusError(f"gave an answer of more than {MAX_ANSWER >> 20} MiB")
            if time.monotonic() > self.deadline:
                raise PrometheusError(f"did not answer within {DEADLINE_SECONDS:.0f}s")
        return bytes(body)


def _refusal(status: int, body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict) and document.get("status") == "error":
        return f"answered {status}: {clean(document.get('error'))}"
    return f"answered {status}, not as a Prometheus server does; check the url"


def _short(error: Exception) -> str:
    """The innermost reason, without the object addresses that make a message differ each time."""
    reason: BaseException = error
    while (inner := reason.__cause__ or reason.__context__) is not None:
        reason = inner
    return str(getattr(reason, "strerror", None) or type(reason).__name__)[:200]
