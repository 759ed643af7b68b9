"""What the gateway is told at its start: `gateway.json` from the ConfigMap, the engines' key and the users' key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG_FILE = Path("/etc/r1/gateway.json")
ENGINE_KEY_FILE = Path("/var/run/r1/engine-key")
API_KEY_VARIABLE = "R1_API_KEY"


@dataclass(frozen=True, slots=True)
class Settings:
    """`workers` is the list of the moment at which the operator last wrote the ConfigMap, `epoch` its leadership: a
    gateway that starts while the operator is away serves with it until it is told better. Times in seconds.

    `admin_hash`: SHA-256, in hex, of the token that the operator shows to the admin port: the token itself is nowhere
    in the namespace. `api_key`: what users show, `engine_key`: what we show to the engines; None: not asked for.
    """

    served_name: str
    admin_hash: str
    api_key: str | None
    address: str
    engine_key: str | None = None
    port: int = 8000
    admin_port: int = 8001
    metrics_port: int = 29000
    drain_seconds: float = 300.0
    linger_seconds: float = 5.0
    workers: frozenset[str] = frozenset()
    epoch: int = 0


class SettingsError(Exception):
    """What is wrong with the configuration, where, and the remedy."""


def read_settings(config_file: Path, engine_key_file: Path, environment: Mapping[str, str], address: str) -> Settings:
    """Read and check the configuration. Raises SettingsError that names the file and the field."""
    try:
        config = json.loads(config_file.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{config_file}: {error}; is the gateway's ConfigMap mounted there?") from error
    if not isinstance(config, dict):
        raise SettingsError(f"{config_file}: not a JSON object")
    known = {
        "servedName": ("served_name", str),
        "adminTokenSha256": ("admin_hash", str),
        "port": ("port", int),
        "adminPort": ("admin_port", int),
        "metricsPort": ("metrics_port", int),
        "drainSeconds": ("drain_seconds", float),
        "lingerSeconds": ("linger_seconds", float),
        "epoch": ("epoch", int),
    }
    values: dict[str, Any] = {}
    for field, (attribute, kind) in known.items():
        if field in config:
            values[attribute] = _value(config_file, field, config[field], kind)
    if not values.get("served_name"):
        raise SettingsError(f"{config_file}: servedName is missing: the model name clients ask for")
    if not re.fullmatch("[0-9a-f]{64}", values.get("admin_hash", "")):
        raise SettingsError(
            f"{config_file}: adminTokenSha256 is no SHA-256 in hex, so nobody could feed this gateway; "
            "run a gateway of the operator's own version"
        )
    workers = config.get("workers", [])
    if not isinstance(workers, list) or not all(isinstance(url, str) for url in workers):
        raise SettingsError(f"{config_file}: workers is not a list of URLs")
    # An empty key would let everybody in who sends an empty one.
    api_key = environment.get(API_KEY_VARIABLE)
    if api_key is not None and not api_key.strip():
        raise SettingsError(f"{API_KEY_VARIABLE}: empty; the Secret of spec.gateway.apiKeySecret holds no key")
    return Settings(
        engine_key=_engine_key(engine_key_file),
        api_key=api_key.strip() if api_key else None,
        address=address,
        workers=frozenset(workers),
        **values,
    )


def _value(file: Path, field: str, value: object, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise SettingsError(f"{file}: {field} is {value!r}, not of type {kind.__name__}")
    return value


def _engine_key(file: Path) -> str | None:
    """What the engines ask for; None where the pod was given no key, as by an operator whose engines ask for none."""
    try:
        key = file.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{file}: {error}; is the engines' Secret mounted there?") from error
    if not key:
        raise SettingsError(f"{file}: empty; the engines would take no request")
    return key
