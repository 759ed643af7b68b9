"""How long a rank that has loaded its weights waits for the slowest: SGLang says 480 s and then ends the engine.

A node that has the files in its page cache loads in minutes, its partner from a slow volume in an hour. How long a
start may stand still is ours to say (see `startup`), so SGLang gets the limit of the whole start.
"""

from __future__ import annotations

import os
from typing import Any

LOADING_MODULE = "sglang.srt.model_executor.model_runner_components.load_model_utils"
LOADING_LIMIT = "UNBALANCED_MODEL_LOADING_TIMEOUT_S"
LOADING_VARIABLE = "R1_LOADING_SECONDS"


def wait_for_the_slowest(module: Any) -> None:
    """Sets the limit of the module, as the environment says."""
    setattr(module, LOADING_LIMIT, float(os.environ[LOADING_VARIABLE]))
