"""Tokens of one R1Deployment, derived and kept nowhere: the operator needs to read no Secret in users' namespaces."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

MASTER_BYTES = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """`master` is what the operator alone knows; another master gives other tokens. Never shown nor logged."""

    master: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.master) < MASTER_BYTES:
            raise ValueError(f"a master key of {len(self.master)} bytes could be guessed; {MASTER_BYTES} are needed")

    @classmethod
    def random(cls) -> Keys:
        """For one process."""
        return cls(secrets.token_bytes(MASTER_BYTES))

    def gateway(self, uid: str) -> str:
        """What the operator shows to the admin port of this R1Deployment's gateway."""
        return self._token("gateway", uid)

    def ray(self, uid: str) -> str:
        """What the pods of this R1Deployment's gangs ask each other for, and whoever tells one to drain."""
        return self._token("ray", uid)

    def engine(self, uid: str) -> str:
        """What its engines' HTTP port asks for."""
        return self._token("engine", uid)

    def _token(self, purpose: str, uid: str) -> str:
        return hmac.new(self.master, f"{purpose}/{uid}".encode(), hashlib.sha256).hexdigest()
