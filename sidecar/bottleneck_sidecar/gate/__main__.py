"""``python -m bottleneck_sidecar.gate``"""

import sys

from bottleneck_sidecar.gate.main import main

if __name__ == "__main__":
    sys.exit(main())
