"""docs/fidelity: each setting of other people's manifests has a verdict, and what the verdicts say of ours is so."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import yaml
from r1_engine.fabric import Fabric, Port, read_fabric
from r1_operator.api.crd import CHART_FILE

from docs.fidelity.tables import MANIFESTS, OURS, SECTIONS, VERDICTS, verdict_of
from tests.unit.fabric_trees import Hca, roce, write_tree
from tests.unit.rendering import EXAMPLES, Rendered, render, rendered

VALUES = CHART_FILE.parents[1] / "values.yaml"
ADDRESSES = tuple(f"10.9.{i}.1" for i in range(8))
ENTRIES = [(section, name) for section in SECTIONS for name in OURS[section]]
Missing = object()


def with_verdict(verdict: str, field: str | None = None) -> list[tuple[str, str, str]]:
    """Section, setting and what follows, of each entry with this verdict (and this field)."""
    found = [(section, name, *verdict_of(OURS[section][name])) for section, name in ENTRIES]
    return [(section, name, rest) for section, name, word, rest in found if word == verdict and field in (None, rest)]


# ── no blank line ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_setting_has_one_verdict_and_no_verdict_is_about_nothing() -> None:
    theirs = {(section, name) for manifest in MANIFESTS.values() for section in SECTIONS for name in manifest[section]}
    assert theirs == set(ENTRIES)
    for section, name in ENTRIES:
        entry = OURS[section][name]
        assert set(entry) <= {*VERDICTS, "as", "note"}, (section, name)
        assert verdict_of(entry)[1].strip(), (section, name)


def test_the_manifests_are_ten_or_more_and_each_is_named_to_the_commit() -> None:
    assert len(MANIFESTS) >= 10
    for name, manifest in MANIFESTS.items():
        assert set(manifest) == {"about", "repo", "files", *SECTIONS}, name
        assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in manifest["files"].values()), name


# ── same ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def plain() -> Rendered:
    return render("r1-infiniband")


@cache
def wide() -> Rendered:
    obj = yaml.safe_load((EXAMPLES / "r1-infiniband.yaml").read_text())
    obj["spec"]["topology"] = {"nodesPerReplica": 4}
    return rendered(obj, engine={})


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    """Arguments, and what the agent sets on InfiniBand or on RoCE."""
    infiniband = read_fabric(write_tree(tmp_path_factory.mktemp("ib"), [Hca(f"mlx5_{i}") for i in range(8)]), ())
    ethernet = [roce(f"mlx5_{i}", address) for i, address in enumerate(ADDRESSES)]
    over_roce = read_fabric(write_tree(tmp_path_factory.mktemp("roce"), ethernet), ADDRESSES)
    argv, environment = plain().launched(infiniband)
    _, more = plain().launched(over_roce)
    return argv, environment | more


@pytest.mark.parametrize(("section", "name", "place"), with_verdict("same"))
def test_what_is_the_same_is_where_it_is_said_to_be(
    section: str, name: str, place: str, started: tuple[list[str], dict[str, str]]
) -> None:
    where, _, value = place.partition(" = ")
    kind, _, path = where.rpartition(" ")
    argv, environment = started
    found = {
        "pod": lambda: at(plain().pod, path),
        "host pod": lambda: at(render("r1-host-network").pod, path),
        "gateway": lambda: at(plain().gateway, path),
        "expected": lambda: at(plain().told["expected"], path),
        "argument": lambda: after(plain().told["engineArgs"], path),
        "wide argument": lambda: after(wide().told["engineArgs"], path),
        "launch": lambda: after(argv, path),
        "agent": lambda: environment.get(path, Missing),
    }[kind]()
    assert found is not Missing, place
    if value:
        assert (str(found).lower() if isinstance(found, bool) else str(found)) == value


IDS = ("name", "key")


def at(thing: Any, path: str) -> Any:
    """What is at `a.b[c].d`: of a list the item that is `c` or has it as name or key, of a map the key `c`."""
    for key in re.findall(r"\[[^]]+\]|[^.\[\]]+", path):
        word = key.strip("[]")
        if isinstance(thing, list):
            thing = next((i for i in thing if i == word or (isinstance(i, dict) and word in map(i.get, IDS))), Missing)
        else:
            thing = thing.get(word, Missing) if isinstance(thing, dict) else Missing
    return thing


def after(argv: list[str], flag: str) -> Any:
    return argv[argv.index(flag) :] if flag in argv else Missing


# ── said ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def resource_schema() -> dict[str, Any]:
    (version,) = yaml.safe_load(CHART_FILE.read_text())["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("section", "name", "field"), with_verdict("said"))
def test_what_can_be_said_has_a_field(section: str, name: str, field: str) -> None:
    if field.startswith("chart "):
        assert at(yaml.safe_load(VALUES.read_text()), field.removeprefix("chart ")) is not Missing
        return
    schema = resource_schema()
    for key in field.split("."):
        schema = schema.get("items", schema)
        assert key in schema.get("properties", {}), f"{field}: no {key}"
        schema = schema["properties"][key]


VARIABLES = [
    variable
    for _, name, _ in with_verdict("said", "spec.engine.env")
    if re.fullmatch("[A-Z][A-Z0-9_]+", variable := OURS["env"][name].get("as", name))
]


def test_variables_reach_the_engine_as_they_were_said() -> None:
    assert len(VARIABLES) > 40
    wanted = {name: f"theirs {number}" for number, name in enumerate(VARIABLES)}
    mine = render("r1-infiniband", env=[{"name": name, "value": value} for name, value in wanted.items()])
    eight = tuple(Port(f"mlx5_{i}", 1, gbits=400) for i in range(8))
    assert wanted.items() <= mine.launched(Fabric(ports=eight))[1].items()


def test_arguments_reach_the_engine_as_they_were_said() -> None:
    wanted = []
    for section, name, _ in with_verdict("said", "spec.engine.args"):
        flag = OURS[section][name].get("as", name)
        given = next(m[section][name] for m in MANIFESTS.values() if name in m[section])
        wanted.append([flag] if given is True or "=" in flag else [flag, str(given).lower()])
    assert len(wanted) > 8
    mine = render("r1-infiniband", args=[word for words in wanted for word in words])
    argv, _ = mine.launched(Fabric())
    for words in wanted:
        assert words == argv[argv.index(words[0]) :][: len(words)]


def test_nothing_is_missing() -> None:
    assert not list(with_verdict("missing"))
