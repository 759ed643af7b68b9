"""The operator's own Secret: made once, agreed on by several, and refused when it is no key."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from r1_operator.api import names
from r1_operator.cluster import ApiError
from r1_operator.cluster.master_key import MasterKeyBroken, master_key


class Api:
    """Holds one Secret. `rival`: what another operator makes between our look and our create."""

    def __init__(self, held: dict[str, Any] | None = None, rival: dict[str, Any] | None = None) -> None:
        self.held, self.rival, self.made = held, rival, 0

    async def get(self, _: object, namespace: str, name: str) -> dict[str, Any]:
        assert (namespace, name) == ("system", names.MASTER_SECRET)
        if self.held is None:
            raise ApiError(404, "NotFound", "not found")
        return self.held

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        if self.rival is not None:
            self.held = self.rival
            raise ApiError(409, "AlreadyExists", "exists")
        self.held, self.made = obj, self.made + 1
        return obj


def secret(key: bytes) -> dict[str, Any]:
    data = {names.MASTER_KEY_KEY: base64.b64encode(key).decode()}
    return {"metadata": {"namespace": "system", "name": names.MASTER_SECRET}, "data": data}


async def test_it_is_made_once_and_read_from_then_on() -> None:
    api = Api()
    first = await master_key(api, "system")  # type: ignore[arg-type]
    assert len(first) == 32
    assert await master_key(api, "system") == first  # type: ignore[arg-type]
    assert api.made == 1
    assert await master_key(Api(), "system") != first  # type: ignore[arg-type]


async def test_of_two_operators_that_start_at_once_both_use_the_first_ones() -> None:
    assert await master_key(Api(rival=secret(b"r" * 32)), "system") == b"r" * 32  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken", [secret(b""), secret(b"short"), {**secret(b""), "data": {"master": "%"}}, {**secret(b""), "data": None}]
)
async def test_what_is_no_key_is_refused_with_the_remedy(broken: dict[str, Any]) -> None:
    with pytest.raises(MasterKeyBroken, match=r"system/r1-operator-keys .*; delete it"):
        await master_key(Api(broken), "system")  # type: ignore[arg-type]
