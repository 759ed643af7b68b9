"""Refuses Python files over 400 lines and functions over 60: what grows past that is two things."""

import ast
import subprocess
import sys
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
GENERATED = ("_pb2.py", "_pb2_grpc.py", "_pb2.pyi")


def problems(path: Path) -> list[str]:
    """What is too long in one file, a line each."""
    text = path.read_text()
    found = []
    lines = text.count("\n")
    if lines > MAX_FILE_LINES:
        found.append(f"{path}: {lines} lines, more than {MAX_FILE_LINES}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(f"{path}:{node.lineno}: {node.name} has {length} lines, more than {MAX_FUNCTION_LINES}")
    return found


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "*.py"], check=True, capture_output=True, text=True).stdout.split()
    files = [Path(name) for name in listed if not name.endswith(GENERATED)]
    found = [line for path in files if path.exists() for line in problems(path)]
    print("\n".join(found) or f"{len(files)} files are short enough")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
