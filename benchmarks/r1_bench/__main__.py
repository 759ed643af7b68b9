"""`python -m r1_bench`."""

from __future__ import annotations

import sys

from r1_bench.cli import main

sys.exit(main())
