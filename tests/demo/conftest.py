"""The demo is a package under hack/, which is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "hack"))
