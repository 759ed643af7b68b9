"""The Dockerfiles, which cannot be built here: what they copy exists, what they install is what the tests run on."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = {"operator": "r1_operator", "gateway": "r1_gateway", "engine": "r1_engine"}
ENVIRONMENTS = {"operator": ".venv", "gateway": ".venv", "engine": ".venv-engine"}


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str


def instructions(image: str) -> list[Instruction]:
    text = (ROOT / "docker" / f"{image}.Dockerfile").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    return [Instruction(*line.split(maxsplit=1)) for line in lines]


def said(image: str, word: str) -> list[str]:
    return [instruction.rest for instruction in instructions(image) if instruction.word == word]


def copied(image: str) -> list[str]:
    """Sources that come from the project."""
    return [source for rest in said(image, "COPY") if "--from" not in rest for source in rest.split()[:-1]]


def module_of(image: str) -> str:
    (command,) = said(image, "CMD")
    python, flag, module = json.loads(command)
    assert (python, flag) == ("python", "-m")
    return str(module)


def locked() -> dict[str, dict[str, Any]]:
    return {package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_exists_and_is_not_ignored(image: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied(image)
    for source in copied(image):
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, f"{source} is copied but .dockerignore leaves it out"


@pytest.mark.parametrize("image", IMAGES)
def test_the_command_is_a_module_of_the_environment_that_tests_use(image: str) -> None:
    module = module_of(image)
    assert module == IMAGES[image]
    python = ROOT / ENVIRONMENTS[image] / "bin" / "python"
    find = f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}.__main__') is None)"
    assert subprocess.run([str(python), "-c", find]).returncode == 0, f"python -m {module} would not start"


def test_small_images_do_not_run_as_root() -> None:
    for image in ("operator", "gateway"):
        assert said(image, "USER") == ["65532:65532"]


def test_uv_is_the_one_that_sets_the_project_up() -> None:
    version = re.search(r"uv_version=(\S+)", (ROOT / "scripts" / "setup.sh").read_text())
    assert version is not None
    for image in ("operator", "gateway"):
        assert f"uv=={version[1]}" in " ".join(said(image, "RUN"))


def test_the_engine_has_the_locked_versions() -> None:
    pins = dict(re.findall(r'"([a-z-]+)(?:\[[a-z]+\])?==([0-9.]+)"', " ".join(said("engine", "RUN"))))
    assert pins == {name: locked()[name]["version"] for name in ("ray", "nvidia-ml-py")}
    sglang = locked()["sglang"]["version"]
    assert said("engine", "ARG") == [f"SGLANG_IMAGE=lmsysorg/sglang:v{sglang}"]
    assert f"v.__version__ == '{sglang}'" in " ".join(said("engine", "RUN"))


def test_the_engine_imports_nothing_that_its_image_lacks() -> None:
    """It is installed without dependencies: all has to come with SGLang and the two packages added to it."""
    there = with_dependencies(("sglang", "ray", "nvidia-ml-py"))
    code = "import json; from importlib.metadata import packages_distributions as p; print(json.dumps(p()))"
    python = ROOT / ".venv-engine" / "bin" / "python"
    distributions = json.loads(subprocess.run([str(python), "-c", code], check=True, capture_output=True).stdout)
    for module in imported(ROOT / "engine" / "r1_engine") - set(sys.stdlib_module_names) - {"r1_engine"}:
        providers = {name.lower().replace("_", "-") for name in distributions.get(module, ())}
        assert providers & there, f"r1_engine imports {module}, which nothing in the engine's image provides"


def with_dependencies(names: tuple[str, ...]) -> set[str]:
    """The packages and all they need, by the lock; of extras only those that the lock names on the way."""
    packages, seen, waiting = locked(), set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in packages:
            continue
        seen.add(name)
        package = packages[name]
        needed = [*package.get("dependencies", ())]
        if name == "ray":
            needed += package.get("optional-dependencies", {}).get("default", ())
        waiting += [dependency["name"] for dependency in needed]
    return seen


def imported(folder: Path) -> set[str]:
    """Top-level names of all absolute imports below a folder."""
    found: set[str] = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("image", ["operator", "gateway"])
def test_the_build_stage_makes_a_working_slim_environment(image: str, tmp_path: Path) -> None:
    """The very `uv sync` of the Dockerfile, in a folder that holds what it copies and nothing else."""
    build, environment = tmp_path / "build", tmp_path / "venv"
    build.mkdir()
    for source in copied(image):
        path = ROOT / source
        if path.is_dir():
            shutil.copytree(path, build / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, build / source)
    (command,) = [rest for rest in said(image, "RUN") if rest.startswith("uv sync")]
    settings = {"UV_PROJECT_ENVIRONMENT": str(environment), "UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
    _, *arguments = shlex.split(command)
    done = subprocess.run(
        [find_uv(), *arguments], cwd=build, env=clean_environment() | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(build)  # an editable install would stop working here

    python = str(environment / "bin" / "python")
    helped = subprocess.run(
        [python, "-m", module_of(image), "--help"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert helped.returncode == 0, helped.stderr
    code = "from importlib.metadata import distributions as d; print(*(x.metadata['Name'].lower() for x in d()))"
    installed = set(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split())
    assert not installed & {"torch", "ray", "sglang", "pytest"}


def clean_environment() -> dict[str, str]:
    """Of this process's surroundings only what finds programs and registries."""
    kept = ("PATH", "HOME", "UV_", "PIP_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy", "XDG_CACHE_HOME")
    return {name: value for name, value in os.environ.items() if name.startswith(kept)}


def find_uv() -> str:
    """Where `make setup` finds or puts it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1-operator"
    found = shutil.which("uv") or next((str(path) for path in sorted(cache.glob("uv-*/bin/uv"))), None)
    assert found is not None, "no uv: run `make setup`"
    return found
