"""Names inside SGLang that we set from outside are still there in the version we run. Read, not imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from r1_engine.loading import LOADING_LIMIT, LOADING_MODULE

pytestmark = pytest.mark.engine


def test_the_limit_of_an_uneven_load_is_read_where_we_set_it() -> None:
    package = importlib.util.find_spec("sglang")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent.joinpath(*LOADING_MODULE.split(".")[1:]).with_suffix(".py")
    text = file.read_text()
    assert f"seconds={LOADING_LIMIT}" in text
