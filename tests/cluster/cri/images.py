"""Image names → local environments.

An image of the local cluster is no archive of layers but a description of what a container of it sees: host paths bound
read-only, search path, environment and user. The catalogue is a JSON file,
`{name: {root, path, env, user, entrypoint, command, workdir}}`, described in README.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class CatalogueError(ValueError):
    """The image catalogue is wrong; the message names the file, the field, the reason and the remedy."""


class UnknownImage(LookupError):
    """No image of that name; the message lists those that exist."""


@dataclass(frozen=True)
class Image:
    """One environment. `root` maps container paths to host paths; `binds` are host paths shown at the same place."""

    name: str
    root: Mapping[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: int = 0
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = "/"
    binds: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """A digest of the name: images have no content of their own here."""
        return "sha256:" + hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def repository(self) -> str:
        """The name without its tag."""
        return _split(self.name)[0]

    def environment(self) -> dict[str, str]:
        """The variables a container of this image starts with."""
        return {"PATH": ":".join((*self.path, *SYSTEM_PATH)), **self.env}


# A shell and the usual tools of the host: enough for probes, hooks and small test pods.
BUILT_IN = Image(name="busybox:dev", command=("sh",))


@dataclass(frozen=True)
class Catalogue:
    """All images of a node, by name."""

    images: Mapping[str, Image]

    def find(self, reference: str) -> Image:
        """The image a pod's reference means.

        Tried in this order: the reference as it is, without digest, without registry host, its last path segment, and
        (when it names no tag, or `latest`) the only image of that repository. A catalogue's id works as well.

        Raises:
            UnknownImage: nothing fits; the message lists the images there are.
        """
        for image in self.images.values():
            if reference == image.id:
                return image
        for name in _candidates(reference):
            if name in self.images:
                return self.images[name]
        repository, tag = _split(_without_digest(reference))
        if tag in ("", "latest"):
            segment = repository.rsplit("/", 1)[-1]
            same = [image for image in self.images.values() if image.repository == segment]
            if len(same) == 1:
                return same[0]
        known = ", ".join(sorted(self.images)) or "none"
        raise UnknownImage(f"image {reference!r} is not in the local cluster; it has: {known}")


def _without_digest(reference: str) -> str:
    return reference.split("@", 1)[0]


def _split(reference: str) -> tuple[str, str]:
    repository, colon, tag = reference.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (reference, "")


def _candidates(reference: str) -> list[str]:
    plain = _without_digest(reference)
    host, slash, rest = plain.partition("/")
    is_host = bool(slash) and (re.search(r"[.:]", host) is not None or host == "localhost")
    return [reference, plain, *([rest] if is_host else []), plain.rsplit("/", 1)[-1]]


def load_catalogue(file: Path) -> Catalogue:
    """Read the catalogue and find what its environments need from the host.

    Raises:
        CatalogueError: unreadable JSON, an unknown field, a wrong type or a host path that does not exist.
    """
    try:
        entries = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CatalogueError(
            f"{file}: cannot be read as JSON ({error}); write {{image name: {{root, path, …}}}}"
        ) from error
    if not isinstance(entries, dict):
        raise CatalogueError(f"{file}: must be an object of image names, is {type(entries).__name__}")
    images = {BUILT_IN.name: BUILT_IN}
    for name, entry in entries.items():
        images[name] = _parse(file, name, entry)
    return Catalogue(images)


def _parse(file: Path, name: str, entry: Any) -> Image:
    types: dict[str, type] = {
        "root": dict,
        "path": list,
        "env": dict,
        "user": int,
        "entrypoint": list,
        "command": list,
        "workdir": str,
    }
    if not isinstance(entry, dict):
        raise CatalogueError(f"{file}: {name}: must be an object with {', '.join(types)}")
    for key, value in entry.items():
        if key not in types:
            raise CatalogueError(f"{file}: {name}.{key}: unknown field; known are {', '.join(types)}")
        if not isinstance(value, types[key]):
            raise CatalogueError(f"{file}: {name}.{key}: must be a {types[key].__name__}, is {type(value).__name__}")
    root = {str(target): str(source) for target, source in entry.get("root", {}).items()}
    for target, source in root.items():
        if not target.startswith("/") or not Path(source).exists():
            raise CatalogueError(
                f"{file}: {name}.root: {target!r} → {source!r}: "
                "needs an absolute container path and a host path that exists"
            )
    return Image(
        name=name,
        root=root,
        path=tuple(entry.get("path", ())),
        env={str(key): str(value) for key, value in entry.get("env", {}).items()},
        user=entry.get("user", 0),
        entrypoint=tuple(entry.get("entrypoint", ())),
        command=tuple(entry.get("command", ())),
        workdir=entry.get("workdir", "/"),
        binds=host_paths(list(root.values())),
    )


def host_paths(sources: list[str]) -> tuple[str, ...]:
    """Host paths that must be visible at their own place for the environments among `sources` to work.

    Scripts of a virtual environment name their interpreter by its absolute host path, and that is a link into an
    interpreter's prefix elsewhere. What lies under /usr is visible anyway.
    """
    wanted = {str(Path(source).absolute()) for source in sources if Path(source).is_dir()}
    for source in list(wanted):
        if (Path(source) / "pyvenv.cfg").exists():
            wanted.add(str((Path(source) / "bin" / "python").resolve().parent.parent))
    kept: list[str] = []
    for path in sorted(wanted):
        if not any(PurePosixPath(path).is_relative_to(other) for other in (*kept, "/usr")):
            kept.append(path)
    return tuple(kept)
