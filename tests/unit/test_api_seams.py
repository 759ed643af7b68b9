"""What the operator mounts and the engine and the gateway read, which may not import its names, is the same."""

from __future__ import annotations

from pathlib import Path

from r1_engine import gate
from r1_engine.config import DEFAULT_CONFIG_PATH, DEFAULT_KEY_PATH, DEFAULT_TOKEN_PATH, Ports
from r1_gateway import settings, vouch
from r1_operator.api import names


def test_the_engine_reads_where_the_operator_mounts() -> None:
    assert f"{names.PATH_ENGINE_CONFIG_DIR}/{names.ENGINE_CONFIG_KEY}" == DEFAULT_CONFIG_PATH
    assert f"{names.PATH_RAY_TOKEN_DIR}/{names.RAY_TOKEN_FILE}" == DEFAULT_TOKEN_PATH
    assert f"{names.PATH_RAY_TOKEN_DIR}/{names.ENGINE_KEY_FILE}" == DEFAULT_KEY_PATH


def test_the_engine_listens_where_the_operator_asks() -> None:
    ports = Ports()
    assert (ports.http, ports.agent) == (names.PORT_ENGINE_HTTP, names.PORT_ENGINE_AGENT)
    assert (ports.ray, ports.dist) == (names.PORT_RAY, names.PORT_DIST)


def test_the_gateway_reads_where_the_operator_mounts() -> None:
    assert Path(names.PATH_GATEWAY_CONFIG_DIR, names.GATEWAY_CONFIG_KEY) == settings.CONFIG_FILE
    assert Path(names.PATH_GATEWAY_KEY_DIR, names.ENGINE_KEY_FILE) == settings.ENGINE_KEY_FILE
    assert settings.API_KEY_VARIABLE == names.ENV_GATEWAY_API_KEY


def test_the_gateway_vouches_where_the_engine_listens_and_in_time() -> None:
    assert vouch.PATH == gate.USERS_PATH
    assert vouch.AGAIN_SECONDS * 5 < gate.VOUCHED_SECONDS, "an engine that misses a few must not forget"
