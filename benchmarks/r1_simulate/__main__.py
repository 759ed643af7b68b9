"""`python -m r1_simulate` is `r1 simulate`."""

import sys

from .cli import main

sys.exit(main())
