"""`python -m r1_engine.serve <sglang arguments>`: what `sglang serve` runs for a language model, behind our gate.

SGLang spawns its schedulers and detokenizers with multiprocessing's "spawn", which imports this module again in each of
them as `__mp_main__`. So what must hold in every process of the engine stands at the top, and the rest below `main`.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from r1_engine.cpu import MODE_VARIABLE
from r1_engine.import_hooks import after_import
from r1_engine.launch import GATE_VARIABLE, PROBE_KEY_VARIABLE
from r1_engine.loading import LOADING_MODULE, LOADING_VARIABLE, wait_for_the_slowest
from r1_engine.own_requests import show_key

OWN_CLIENT = "sglang.srt.entrypoints.http_server"
if os.environ.get(GATE_VARIABLE) and (probe_key := os.environ.get(PROBE_KEY_VARIABLE)):
    after_import(OWN_CLIENT, partial(show_key, probe_key=probe_key))
if LOADING_VARIABLE in os.environ:
    after_import(LOADING_MODULE, wait_for_the_slowest)
if os.environ.get(MODE_VARIABLE) == "1":
    from r1_engine.cpu import fork, patches

    patches.install()
    fork.install()


def main(argv: list[str]) -> None:
    from sglang.launch_server import run_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    from r1_engine import serve_app  # noqa: F401  (puts the gate around SGLang's application)

    load_plugins()
    try:
        run_server(prepare_server_args(argv))
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__main__":
    main(sys.argv[1:])
