"""Credentials that are not there, or are something else, are told with the file and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from r1_operator.cluster import ApiError
from r1_operator.cluster.connection import load_configuration


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        ("", "empty, or something else"),
        ("just words\n", "empty, or something else"),
        ("[1, 2]\n", "empty, or something else"),
        ("a: [b\n", "expected ',' or ']'"),
        ("apiVersion: v1\nkind: Config\n", "Expected key current-context"),
    ],
)
async def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, content: str | None, told: str) -> None:
    file = tmp_path / "kubeconfig"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ApiError) as error:
        await load_configuration(str(file))
    assert error.value.message.startswith(f"{file}: ")
    assert told in error.value.message
    assert "--kubeconfig or KUBECONFIG" in error.value.message
    assert error.value.transient, "a file that is just being written is whole a moment later"
