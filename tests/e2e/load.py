"""The bundled load test as a child process: start it, stop it as Ctrl-C does, read its report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.site import CHECKOUT


@dataclass
class Load:
    """A running load test. `report` is filled when it has ended."""

    process: subprocess.Popen[str]
    report_file: Path
    report: dict[str, Any] = field(default_factory=dict)
    output: str = ""

    def stop(self, seconds: float = 180) -> dict[str, Any]:
        """Interrupts it: no new requests; what runs is finished or counted. Returns its JSON report."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.wait(seconds)

    def wait(self, seconds: float) -> dict[str, Any]:
        """Waits for its end. Raises subprocess.TimeoutExpired after `seconds`."""
        self.output = self.process.communicate(timeout=seconds)[0]
        self.report = json.loads(self.report_file.read_text())
        return self.report


@contextmanager
def load(url: str, *flags: str) -> Iterator[Load]:
    """Runs `r1 bench` against `url`; whatever happens, it has ended when the block has."""
    with tempfile.TemporaryDirectory(prefix="r1-load-") as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "r1_bench", "--url", url, "--json", str(report), "--quiet", *flags]
        process = subprocess.Popen(
            command, cwd=CHECKOUT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        running = Load(process, report)
        try:
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
