"""The admission webhook: HTTPS in front of ``review``, with certificates that may change."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import ssl
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from .options import add_sidecar_options, sidecar_settings
from .pod import InjectSettings
from .policies import Policies, connected
from .review import ReviewError, namespace_of, review

logger = logging.getLogger(__name__)

SETTINGS = web.AppKey("settings", InjectSettings)
POLICIES = web.AppKey("policies", Policies)

MAX_BODY = 8 * 1024 * 1024
"""A review carries an object of up to 1.5 MiB, with escapes, and maybe an old one."""


class Certificate:
    """A certificate and its key on disk, which are loaded again when they change.

    New connections use what was loaded last; a pair that cannot be loaded (half written, not yet
    matching) changes nothing and is tried again.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loaded = self._stamp()
        self.context.load_cert_chain(certificate, key)

    def refresh(self) -> bool:
        """Loads the files if they changed; whether it did."""
        try:
            stamp = self._stamp()
            if stamp == self._loaded:
                return False
            # A pair that does not match must not reach the context that serves.
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*self._files)
            self.context.load_cert_chain(*self._files)
        except OSError as error:  # ssl.SSLError is one
            logger.warning("the certificate cannot be loaded, the last one stays: %s", error)
            return False
        self._loaded = stamp
        logger.info("loaded a new certificate")
        return True

    async def watch(self, seconds: float) -> None:
        """Refreshes for ever, every so many seconds."""
        while True:
            await asyncio.sleep(seconds)
            self.refresh()

    def _stamp(self) -> tuple[bytes, ...]:
        return tuple(file.read_bytes() for file in self._files)


def application(settings: InjectSettings, policies: Policies | None = None) -> web.Application:
    """``POST /mutate`` for the API server, ``GET /healthz`` for the kubelet. Without ``policies``
    pods get the sidecar and nothing else."""
    app = web.Application(client_max_size=MAX_BODY)
    app[SETTINGS] = settings
    app[POLICIES] = policies or Policies(None)
    app.router.add_post("/mutate", _mutate)
    app.router.add_get("/healthz", _healthz)
    return app


async def _mutate(request: web.Request) -> web.Response:
    try:
        body = json.loads(await request.read())
        policies = await request.app[POLICIES].of(namespace_of(body))
        return web.json_response(review(body, request.app[SETTINGS], policies))
    except (ReviewError, ValueError, RecursionError) as error:
        return web.Response(status=400, text=f"{error}\n")


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def serve(
    app: web.Application, certificate: Certificate, host: str, port: int, stop: asyncio.Event
) -> None:
    """Serves until ``stop``, then finishes what is under way."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    watch = asyncio.create_task(certificate.watch(seconds=10))
    try:
        await web.TCPSite(runner, host, port, ssl_context=certificate.context).start()
        logger.info("serving on port %d with sidecar image %s", port, app[SETTINGS].image)
        await stop.wait()
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await runner.cleanup()


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``bottleneck-injector``."""
    parser = argparse.ArgumentParser(
        prog="bottleneck-injector",
        description="Admission webhook that adds the telemetry sidecar to pods that ask for it.",
        epilog="Example: bottleneck-injector --tls-cert tls.crt --tls-key tls.key",
    )
    parser.add_argument("--host", default="0.0.0.0", help="address to serve on (%(default)s)")  # noqa: S104
    parser.add_argument("--port", type=int, default=8443, help="port to serve on (%(default)s)")
    parser.add_argument("--tls-cert", type=Path, required=True, help="PEM file of the certificate")
    parser.add_argument("--tls-key", type=Path, required=True, help="PEM file of its key")
    parser.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="least level that is logged (%(default)s)",
    )
    add_sidecar_options(parser)
    return parser


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    certificate = Certificate(arguments.tls_cert, arguments.tls_key)
    async with Policies(await connected()) as policies:
        app = application(sidecar_settings(arguments), policies)
        await serve(app, certificate, arguments.host, arguments.port, stop)


def main(argv: list[str] | None = None) -> int:
    """The console script."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        asyncio.run(_run(arguments))
    except OSError as error:
        parser.exit(1, f"bottleneck-injector: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
