"""`python -m r1_operator`: the operator's process."""

from __future__ import annotations

import sys

from .controller.options import OptionError, read_options


def main() -> int:
    """Run until SIGTERM (exit 0), a lost lease (1) or a wrong flag (2)."""
    try:
        options = read_options()
    except OptionError as error:
        print(f"r1_operator: {error}", file=sys.stderr)
        return 2
    from .controller.process import run  # the Kubernetes client is a second's import: not for --help

    return run(options)


if __name__ == "__main__":
    sys.exit(main())
