"""The runtime's decisions as values: views, credentials, image names, logs, addresses."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.cri.credentials import (
    DEFAULT_CAPABILITIES,
    Credentials,
    IdMaps,
    capabilities_after,
    setpriv_arguments,
)
from tests.cluster.cri.images import CatalogueError, UnknownImage, load_catalogue
from tests.cluster.cri.logs import MAX_LINE_BYTES, LineSplitter, timestamp
from tests.cluster.cri.network import AddressPool, NoAddressLeft
from tests.cluster.cri.stats import Meter, Usage, parse_cpu
from tests.cluster.cri.view import Bind, HostLayout, View, bwrap_arguments

LAYOUT = HostLayout(links=(("usr/bin", "/bin"),), trees=("/usr", "/sys"))
ALL_IDS = IdMaps(((0, 2**32 - 1),), ((0, 2**32 - 1),), may_set_groups=True)
ONE_ID = IdMaps(((0, 1),), ((0, 1),), may_set_groups=False)


def pairs(arguments: list[str], option: str) -> list[tuple[str, str]]:
    return [(arguments[i + 1], arguments[i + 2]) for i, word in enumerate(arguments) if word == option]


def test_inner_mounts_come_after_outer_ones() -> None:
    binds = (Bind("/h/deep", "/data/a/b"), Bind("/h/tmp", "/tmp", read_only=False), Bind("/h/data", "/data/"))
    arguments = bwrap_arguments(View(binds=binds), LAYOUT)
    assert pairs(arguments, "--ro-bind")[-2:] == [("/h/data", "/data"), ("/h/deep", "/data/a/b")]
    assert pairs(arguments, "--bind") == [("/h/tmp", "/tmp")]
    dirs = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--dir"]
    assert "/tmp" not in dirs, "a volume at /tmp takes the place of the container's own"
    assert "/data/a" in dirs, "parents are made for everyone, not left to bubblewrap"


def test_the_root_is_closed_only_after_all_is_in_it() -> None:
    arguments = bwrap_arguments(View(binds=(Bind("/a", "/b"),), read_only_root=True, workdir="/work/dir"), LAYOUT)
    assert arguments.index("--remount-ro") > max(arguments.index("/b"), arguments.index("/work/dir"))
    assert "--remount-ro" not in bwrap_arguments(View(), LAYOUT)


@given(
    add=st.lists(st.sampled_from(["CAP_NET_ADMIN", "sys_ptrace", "ALL"])),
    drop=st.lists(st.sampled_from(["ALL", "chown", "CAP_KILL"])),
)
def test_capabilities(add: list[str], drop: list[str]) -> None:
    result = capabilities_after(add, drop)
    asked = {name.lower().removeprefix("cap_") for name in add} - {"all"}
    assert asked <= result <= DEFAULT_CAPABILITIES | asked
    if "ALL" in drop and "ALL" not in add:
        assert result == asked
    if "ALL" not in add:
        assert not result & ({name.lower().removeprefix("cap_") for name in drop} - asked)


def test_a_user_that_cannot_be_mapped_is_left_to_a_user_namespace() -> None:
    user = Credentials(uid=65532, gid=65532, groups=(7,), capabilities=frozenset())
    real = setpriv_arguments(user, ALL_IDS)
    assert real[real.index("--reuid") + 1] == "65532"
    assert "--bounding-set=-all" in real
    assert "--reuid" not in setpriv_arguments(user, ONE_ID)
    assert "--clear-groups" not in setpriv_arguments(Credentials(), ONE_ID), "setgroups is forbidden there"


def catalogue(tmp_path: Path, **entries: object) -> Path:
    file = tmp_path / "images.json"
    file.write_text(json.dumps(entries))
    return file


@pytest.mark.parametrize(
    "reference",
    ["r1:dev", "localhost/r1:dev", "ghcr.io/x/r1:dev", "r1", "r1:latest", "r1:dev@sha256:00", "host:5000/r1:dev"],
)
def test_references_that_mean_an_image(tmp_path: Path, reference: str) -> None:
    assert load_catalogue(catalogue(tmp_path, **{"r1:dev": {"user": 7}})).find(reference).user == 7


@pytest.mark.parametrize("reference", ["r1:v2", "r2", "other/r1x:dev"])
def test_unknown_references_list_what_there_is(tmp_path: Path, reference: str) -> None:
    with pytest.raises(UnknownImage, match=r"it has: busybox:dev, r1:dev"):
        load_catalogue(catalogue(tmp_path, **{"r1:dev": {}})).find(reference)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"rot": {}}, r"r1:dev\.rot: unknown field; known are root"),
        ({"user": "root"}, r"r1:dev\.user: must be a int, is str"),
        ({"root": {"/opt": "/no/such/path"}}, r"r1:dev\.root: '/opt' → '/no/such/path'"),
        ([], r"r1:dev: must be an object"),
    ],
)
def test_a_wrong_catalogue_names_its_field(tmp_path: Path, entry: object, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        load_catalogue(catalogue(tmp_path, **{"r1:dev": entry}))


def test_an_environments_interpreter_is_found_wherever_it_lies(tmp_path: Path) -> None:
    prefix, environment = tmp_path / "pythons" / "3.11", tmp_path / "env"
    for directory in (prefix / "bin", environment / "bin"):
        directory.mkdir(parents=True)
    (prefix / "bin" / "python3").touch()
    (environment / "bin" / "python").symlink_to(prefix / "bin" / "python3")
    (environment / "pyvenv.cfg").touch()
    entry = {"root": {"/opt/venv": str(environment)}}
    image = load_catalogue(catalogue(tmp_path, **{"r1:dev": entry})).find("r1:dev")
    assert set(image.binds) == {str(environment), str(prefix)}


@given(st.lists(st.sampled_from([b"a", b"\n", b"b\nc", b"d" * MAX_LINE_BYTES, b"e" * 40_000 + b"\n"]), max_size=6))
def test_log_parts_make_up_the_stream_again(chunks: list[bytes]) -> None:
    splitter = LineSplitter()
    parts = [part for chunk in chunks for part in splitter.feed(chunk)] + splitter.finish()
    assert b"".join(text + (b"\n" if full else b"") for text, full in parts) == b"".join(chunks)
    assert all(len(text) <= MAX_LINE_BYTES and b"\n" not in text for text, _ in parts)


def test_timestamps_have_nine_digits() -> None:
    assert timestamp(1_700_000_000_000_000_042) == "2023-11-14T22:13:20.000000042Z"


def test_addresses_are_unique_and_not_reused_at_once() -> None:
    pool = AddressPool(ipaddress.IPv4Network("10.1.2.0/28"), frozenset({"10.1.2.1"}))
    first = pool.take()
    pool.give_back(first)
    taken = [pool.take() for _ in range(13)]
    assert taken[0] != first
    assert len(set(taken)) == 13
    assert not {"10.1.2.0", "10.1.2.1", "10.1.2.15"} & set(taken)
    with pytest.raises(NoAddressLeft):
        pool.take()


def test_cpu_time_of_a_program_with_an_odd_name() -> None:
    assert parse_cpu("7 (a) b (c) S 1 1 1 0 -1 4194560 0 0 0 0 100 50 25 25 20 0 1 0 0 0 0") == 200 * 10_000_000


def test_cpu_time_never_goes_back_and_has_a_rate() -> None:
    now, cpu = 0.0, 0
    meter = Meter(read=lambda: {"": Usage(cpu, 1, 1)}, clock=lambda: now)
    observed = []
    for now, cpu in ((0.0, 2_000), (10.0, 12_000), (20.0, 7_000)):  # noqa: B007 the lambdas read them
        observed.append(meter.usage("c", pid=2**30))
    assert [usage.cpu_nanoseconds for usage in observed] == [2_000, 12_000, 12_000]
    assert [usage.nano_cores for usage in observed] == [0, 1_000, 0]
