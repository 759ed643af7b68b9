"""SGLang's HTTP application with our gate around it. Imported in every process that serves HTTP."""

from __future__ import annotations

import os
from pathlib import Path

from sglang.srt.entrypoints.http_server import app

from r1_engine.gate import Gate, GateFile
from r1_engine.launch import GATE_VARIABLE, KEY_FILE_VARIABLE, PROBE_KEY_VARIABLE

__all__ = ["app"]

if gate_path := os.environ.get(GATE_VARIABLE):
    key_path = os.environ.get(KEY_FILE_VARIABLE)
    app.add_middleware(
        Gate,
        file=GateFile(Path(gate_path)),
        probe_key=os.environ.get(PROBE_KEY_VARIABLE, ""),
        key=Path(key_path).read_text(encoding="utf-8").strip() if key_path else "",
    )
