"""What `r1 plan` reads: a resource, hardware profiles, a model's configuration. One line for whatever is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from r1_operator.planning.catalog import find_model, known_models
from r1_operator.planning.hardware import Hardware, built_in_hardware
from r1_operator.planning.make import read_wishes, unknown_model
from r1_operator.planning.model import Model, ModelConfigError, read_model
from r1_operator.planning.plan import Refusal
from r1_operator.planning.wishes import Wishes


class InputError(Exception):
    """Bad input: the message is one line for the user."""


def hardware_profiles(file: str | None) -> Mapping[str, Hardware]:
    """The built-in profiles, and those of a YAML list as the chart's `hardwareProfiles` has it."""
    if file is None:
        return built_in_hardware()
    _without_plugins()
    from r1_operator.api.hardware import HardwareProfile
    from r1_operator.api.parse import parse_hardware_profile
    from r1_operator.planning.profiles import resolve_all

    documents = _yaml(Path(file))
    entries = documents[0] if len(documents) == 1 else documents
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise InputError(f"{file}: not a YAML list of hardware profiles")
    given: list[tuple[str, HardwareProfile]] = []
    for position, entry in enumerate(entries):
        profile = parse_hardware_profile(entry, f"[{position}]")
        if isinstance(profile, list):
            raise InputError(f"{file}: {profile[0].field}: {profile[0].message}; {profile[0].remedy}")
        given.append((f"[{position}]", profile))
    whole = resolve_all(given, built_in_hardware())
    if isinstance(whole, Refusal):
        raise InputError(f"{file}: {whole}")
    return {**built_in_hardware(), **whole}


def model(name: str | None, config: str | None, usual: str) -> Model | Refusal:
    """The model of that name, or as its config.json has it; the usual one if neither is given."""
    if config is None:
        asked = name or usual
        return find_model(asked) or unknown_model("spec.model.name", asked, known_models())
    path = Path(config)
    values = _read(path, json.loads, "JSON")
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: not a JSON object")
    try:
        return read_model(name or path.resolve().parent.name, values, str(path))
    except ModelConfigError as error:
        raise InputError(f"{path}: {error}") from None


def wishes_of_resource(name: str, profiles: Mapping[str, Hardware]) -> Wishes | Refusal:
    """What the one R1Deployment in a file fixes; `-` is standard input."""
    _without_plugins()
    from r1_operator.api.parse import parse
    from r1_operator.api.types import R1Deployment

    documents = _yaml(Path("/dev/stdin") if name == "-" else Path(name))
    resources = [d for d in documents if isinstance(d, Mapping) and d.get("kind") == "R1Deployment"]
    if len(resources) != 1:
        raise InputError(f"{name}: {len(resources)} objects of kind R1Deployment, and exactly one is needed")
    parsed = parse(resources[0])
    if not isinstance(parsed, R1Deployment):
        problem = parsed[0]
        raise InputError(f"{name}: {problem.field}: {problem.message}; {problem.remedy}")
    return read_wishes(parsed.spec, profiles)


def _without_plugins() -> None:
    """Before pydantic is imported: looking for plugins, of which there are none, would read the metadata of every
    installed package."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _yaml(path: Path) -> list[Any]:
    import yaml  # only here: its import takes longer than planning

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents: list[Any] = _read(path, lambda text: list(yaml.load_all(text, loader)), "YAML")
    return documents


def _read(path: Path, decode: Callable[[str], Any], form: str) -> Any:
    try:
        return decode(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except Exception as error:
        raise InputError(f"{path}: not {form}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    """YAML's errors tell what and where over several lines; others begin with what matters."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}: {problem}"
    return (str(error).splitlines() or [type(error).__name__])[0]
