"""The operator's own Secret: one key in its own namespace, from which it derives every token that it shows or gives."""

from __future__ import annotations

import base64
import binascii
import secrets

from r1_operator.api import names
from r1_operator.cluster.client import Client
from r1_operator.cluster.errors import ApiError
from r1_operator.cluster.resources import SECRETS, JsonObject

_KEY_BYTES = 32


class MasterKeyBroken(Exception):
    """The Secret holds no key; the message says which, and what to do."""


async def master_key(client: Client, namespace: str) -> bytes:
    """The key, made if there is none yet; several operators agree on one. Raises ApiError, MasterKeyBroken."""
    try:
        return _key_of(await client.get(SECRETS, namespace, names.MASTER_SECRET))
    except ApiError as error:
        if not error.not_found:
            raise
    try:
        return _key_of(await client.create(_secret(namespace)))
    except ApiError as error:
        if not error.already_exists:
            raise
    return _key_of(await client.get(SECRETS, namespace, names.MASTER_SECRET))


def _secret(namespace: str) -> JsonObject:
    """It is nobody's child: helm neither changes it at an upgrade nor takes it along."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {"name": names.MASTER_SECRET, "namespace": namespace},
        "data": {names.MASTER_KEY_KEY: base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()},
    }


def _key_of(secret: JsonObject) -> bytes:
    try:
        key = base64.b64decode((secret.get("data") or {})[names.MASTER_KEY_KEY], validate=True)
    except (KeyError, binascii.Error) as error:
        raise MasterKeyBroken(_what(secret, f"has no readable key {names.MASTER_KEY_KEY!r}")) from error
    if len(key) < _KEY_BYTES:
        raise MasterKeyBroken(_what(secret, f"holds {len(key)} bytes, {_KEY_BYTES} are needed"))
    return key


def _what(secret: JsonObject, why: str) -> str:
    where = f"Secret {secret['metadata']['namespace']}/{names.MASTER_SECRET}"
    return f"{where} {why}; delete it: the operator makes another, and rolls the gateways to it"
