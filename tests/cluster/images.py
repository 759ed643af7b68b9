"""Image names of the local cluster and the environments of this checkout that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

ENVIRONMENT_OF_IMAGE: Final = {
    "r1-operator:dev": ".venv",
    "r1-gateway:dev": ".venv",
    "r1-standin:dev": ".venv",
    "r1-engine:dev": ".venv-engine",
}

IMAGE_USER: Final = 65532
"""Where a pod names no user. The number that distroless images call nonroot."""


def image_table(checkout: Path) -> dict[str, dict[str, Any]]:
    """The container runtime's table of images: what lies where (read-only) in a container, and its PATH.

    An image whose environment has not been made is left out: pods that name it say ErrImagePull, the others work.
    """
    return {
        image: _entry(checkout, checkout / environment)
        for image, environment in ENVIRONMENT_OF_IMAGE.items()
        if (checkout / environment).is_dir()
    }


def _entry(checkout: Path, environment: Path) -> dict[str, Any]:
    return {
        "root": {"/opt/r1": str(checkout), "/opt/venv": str(environment)},
        "path": ["/opt/venv/bin"],
        "env": {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "VIRTUAL_ENV": "/opt/venv"},
        "user": IMAGE_USER,
    }
