"""Serves the character model.

python -m examples.inference.train --out build/model.npz
python -m examples.inference --model build/model.npz
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Before numpy is imported: one request is served at a time, on one core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import uvicorn

from .app import build
from .model import CharacterModel


def main() -> None:
    """Runs the server until it is told to stop."""
    default = Path(os.environ.get("MODEL", "build/model.npz"))
    parser = argparse.ArgumentParser(
        prog="python -m examples.inference", description="Serve a small character model."
    )
    parser.add_argument("--model", type=Path, default=default, help=f"the weights ({default})")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    args = parser.parse_args()
    try:
        model = CharacterModel(args.model)
    except FileNotFoundError as error:
        sys.exit(f"inference: {error}")
    model.generate(1, 1)  # touches the weights before readiness is told
    uvicorn.run(build(model), host=args.host, port=args.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
