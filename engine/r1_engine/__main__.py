"""`python -m r1_engine`."""

import os
import sys

from r1_engine.agent import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no thread of a library may hold the pod back
