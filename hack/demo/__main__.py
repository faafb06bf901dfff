"""`python hack/demo …`, with the project's environment."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Started as a folder, Python puts the folder itself first on the path; the package is its
    # parent's child.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from demo.cli import main

    sys.exit(main())
