"""`python3 hack/localcluster …`: works from a bare checkout, before any venv exists."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Started as a folder, Python puts the folder itself first on the path; the package is its
    # parent's child.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from localcluster.cli import main

    sys.exit(main())
