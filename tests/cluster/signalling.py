"""`python signalling.py PATTERN NUMBER`: a signal to every process that is seen here whose command line matches; prints
how many. It imports nothing of this project: it runs in a node's namespaces."""

import os
import re
import sys
from pathlib import Path


def main(pattern: str, number: int) -> int:
    reached = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
            if re.search(pattern, line):
                os.kill(int(entry.name), number)
                reached += 1
        except OSError:  # it has ended meanwhile
            continue
    return reached


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2])))
