"""The work queue, the flags, and a step that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from r1_operator.cluster import ApiError
from r1_operator.controller.options import OptionError, read_options
from r1_operator.controller.queue import LONGEST_RETRY_SECONDS, WorkQueue
from r1_operator.controller.steps import Steps

A, B = ("ns", "a"), ("ns", "b")
IMAGES = ["--engine-image", "e", "--gateway-image", "g"]


async def test_a_key_is_worked_on_once_at_a_time_and_once_more_if_it_changed_meanwhile() -> None:
    queue = WorkQueue()
    for key in (A, B, A):
        queue.add(key)
    assert await queue.get() == A
    assert await queue.get() == B
    queue.add(A)
    queue.add(A)
    assert queue.depth() == 0
    queue.done(A)
    assert await queue.get() == A
    queue.done(A)
    queue.done(B)
    assert queue.depth() == 0


async def test_retries_wait_longer_until_a_success() -> None:
    queue = WorkQueue()
    waits = [queue.retry(A) for _ in range(10)]
    assert waits == sorted(waits)
    assert waits[0] < 1
    assert waits[-1] == LONGEST_RETRY_SECONDS
    queue.forget(A)
    assert queue.retry(A) == waits[0]


async def test_the_earliest_timer_counts() -> None:
    queue = WorkQueue()
    queue.add_after(A, 3600)
    queue.add_after(A, 0.0)
    queue.add_after(A, 3600)
    assert await asyncio.wait_for(queue.get(), 60) == A


async def test_errors_of_independent_calls_are_joined() -> None:
    steps = Steps("ns/a")

    async def call(error: Exception | None) -> str:
        if error is not None:
            raise error
        return "done"

    refused = ApiError(403, "Forbidden", "pods is forbidden: exceeded quota")
    assert await steps.all("create", [call(refused), call(None), call(ValueError("odd"))]) == ["done"]
    with steps.step("place"):
        raise RuntimeError("later")
    assert steps.errors == [f"create: {refused}", "create: odd", "place: later"]


def test_flags_without_images_are_refused_with_the_remedy() -> None:
    with pytest.raises(OptionError, match=r"--engine-image .* R1_ENGINE_IMAGE"):
        read_options([], {})


def test_namespaces_and_profiles_are_read(tmp_path: Path) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text(
        "- {name: MYx8, gpusPerNode: 8, memoryMib: 81559, usableMemoryMib: 78848, bf16Tflops: 989, "
        "memoryBandwidthGbytesPerSecond: 3350}\n"
    )
    options = read_options(["--watch-namespaces", "a, b", "--hardware-profiles", str(file), *IMAGES], {})
    assert options.namespaces == ("a", "b")
    assert options.settings.profiles["MYx8"].gpus_per_node == 8
    assert "H100x8" in options.settings.profiles


@pytest.mark.parametrize(
    ("text", "named"), [("{a: 1}", "list"), ("- 5", r"\[0\]"), ("- {name: MYx8}", "gpusPerNode"), ("- [", "YAML")]
)
def test_a_bad_profile_file_is_refused_with_file_and_field(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text(text)
    with pytest.raises(OptionError, match=named) as refused:
        read_options(["--hardware-profiles", str(file), *IMAGES], {})
    assert str(file) in str(refused.value)
