"""Writes what a release of SGLang accepts on its command line, one flag a line, from that release's own parser.

    pip download --no-deps sglang==0.5.21 -d DOWNLOADED && unzip -q DOWNLOADED/sglang-*.whl -d UNPACKED
    PYTHONPATH=UNPACKED .venv-engine/bin/python tests/engine/sglang_flags.py > tests/unit/sglang_0_5_21_flags.json

SGLang comes from UNPACKED, what it imports from the environment. The planner's unit tests read the result, so that
arguments for a release which is not installed are checked without a download.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

TYPES = {int: "int", float: "float", str: "str"}


def described(action: argparse.Action) -> dict[str, object]:
    """`words`: how many follow the flag (`0`, `1`, `+` …). `choices` only where the parser checks them."""
    words = "1" if action.nargs is None else str(action.nargs)
    entry: dict[str, object] = {"words": words, "type": TYPES.get(action.type, "str")}  # type: ignore[call-overload]
    return entry | ({"choices": sorted(map(str, action.choices))} if action.choices else {})


def main() -> None:
    os.environ["SGLANG_USE_CPU_ENGINE"] = "1"
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # SGLang prints: keep the answer alone on stdout
    from importlib.metadata import distributions
    from pathlib import Path

    import sglang
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    source = Path(sglang.__file__).parents[1]
    version = next(d.version for d in distributions(path=[str(source)]) if d.name == "sglang")
    known = {name: described(action) for action in parser._actions for name in action.option_strings}
    lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
    print(f'{{"sglang": "{version}", "flags": {{\n' + ",\n".join(lines) + "\n}}", file=out)
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
