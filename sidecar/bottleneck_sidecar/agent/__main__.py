"""``python -m bottleneck_sidecar.agent``"""

import sys

from bottleneck_sidecar.agent.main import main

if __name__ == "__main__":
    sys.exit(main())
