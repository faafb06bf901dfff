"""An HTTP server that writes down what it is asked: ``counting_server.py PORT FILE SECONDS``.

Each request is one line of FILE, its ``context``, before it is answered; it takes SECONDS.
"""

from __future__ import annotations

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        line = parse_qs(urlsplit(self.path).query)["context"][0]
        os.write(FILE, f"{line}\n".encode())
        time.sleep(SECONDS)
        self.send_response(200)
        self.send_header("Content-Length", str(len(line)))
        self.end_headers()
        self.wfile.write(line.encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


if __name__ == "__main__":
    FILE = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    SECONDS = float(sys.argv[3])
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
