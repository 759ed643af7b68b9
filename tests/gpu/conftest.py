"""The stand-in, loaded once into this process: nvidia-ml-py finds the library by its name among those loaded."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from tests.gpu import nvml


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = nvml.build(tmp_path_factory.mktemp("nvml"))
    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return path


@pytest.fixture
def gpus(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nvml.Gpus:
    """Eight healthy H100s; each test may make them otherwise."""
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "gpus"))
    return nvml.Gpus(tmp_path / "gpus")
