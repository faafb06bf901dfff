"""``/healthz`` of the operator: it answers as long as the event loop turns, leader or not."""

from __future__ import annotations

from aiohttp import web


async def serve(port: int) -> None:
    """Begins to serve. Raises OSError where the port is taken."""

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/healthz", alive)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104  the kubelet dials the pod
