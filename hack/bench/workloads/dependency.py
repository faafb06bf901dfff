"""A service that others depend on: answers over HTTP after a while, which may grow later on.

    python -m hack.bench.workloads.dependency --delay 0.2

Prints ``{"port": N}`` when it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


async def serve(args: argparse.Namespace) -> None:
    """Listens until it is stopped."""
    draw = random.Random(args.seed)  # noqa: S311
    began = time.monotonic()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            late = time.monotonic() - began >= args.later_after
            delay = args.later_delay if late else args.delay
            # What a look-up takes varies; never less than half, sometimes several times as long.
            await asyncio.sleep(delay * (0.5 + draw.expovariate(2.0)))
            writer.write(ANSWER)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A dependency that takes its time.")
    parser.add_argument("--delay", type=float, default=0.005, help="mean seconds to answer (0.005)")
    parser.add_argument("--later-delay", type=float, default=0.0, help="the same, later on")
    parser.add_argument("--later-after", type=float, default=1e9, help="seconds until then")
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(serve(parser.parse_args()))
