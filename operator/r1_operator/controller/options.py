"""Command line of the operator."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import yaml

from ..api.hardware import HardwareProfile
from ..api.names import PORT_OPERATOR
from ..api.parse import parse_hardware_profile
from ..api.pod_template import PullPolicy
from ..manifests.context import ImagePull
from ..manifests.network_policy import Reach
from ..placement.place import DEFAULT_FABRIC_LABEL
from ..planning import Refusal, built_in_profiles
from ..planning.profiles import Profile, resolve_all
from ..rounds.host_paths import DEFAULT_PREFIXES
from ..rounds.reading import Settings


class OptionError(Exception):
    """A flag or the file it names is wrong; the message says which, why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the process was started with."""

    settings: Settings
    namespaces: tuple[str, ...]
    lease_namespace: str
    identity: str
    kubeconfig: str | None
    log_level: str
    port: int


def read_options(argv: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Options:
    """Flags, with defaults from the environment. Raises OptionError; argparse itself exits with 2."""
    flags = _parser(environment).parse_args(argv)
    if not flags.engine_image or not flags.gateway_image:
        raise OptionError(
            "--engine-image and --gateway-image (or R1_ENGINE_IMAGE and R1_GATEWAY_IMAGE) are needed: they are what an "
            "R1Deployment without an image of its own gets; the Helm chart sets them from its values"
        )
    profiles = dict(built_in_profiles()) | _read_profiles(flags.hardware_profiles)
    settings = Settings(
        flags.engine_image,
        flags.gateway_image,
        profiles,
        flags.fabric_label,
        reach=_read_reach(flags.network_policies),
        host_path_prefixes=_read_prefixes(flags.host_path_prefixes),
        adopts=flags.adopt_defaults == "Staggered",
        node_conditions=frozenset(_names(flags.node_conditions)),
        images=ImagePull(flags.image_pull_policy, _names(flags.image_pull_secrets)),
    )
    return Options(
        settings=settings,
        namespaces=_names(flags.watch_namespaces),
        lease_namespace=flags.leader_elect_namespace,
        identity=environment.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
        kubeconfig=flags.kubeconfig,
        log_level=flags.log_level,
        port=flags.port,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("r1_operator", description="The operator of R1Deployments.")
    add = parser.add_argument
    add("--watch-namespaces", default="", metavar="A,B", help="only these namespaces; default: all")
    add(
        "--leader-elect-namespace",
        default=environment.get("POD_NAMESPACE", "default"),
        metavar="NS",
        help="namespace of the Lease by which one of several operators leads; default: $POD_NAMESPACE",
    )
    add("--engine-image", default=environment.get("R1_ENGINE_IMAGE"), help="engine image of resources that name none")
    add(
        "--gateway-image", default=environment.get("R1_GATEWAY_IMAGE"), help="gateway image of resources that name none"
    )
    add(
        "--image-pull-policy",
        choices=get_args(PullPolicy),
        help="of engine and gateway images of resources that name none; default: Kubernetes' own",
    )
    add(
        "--image-pull-secrets",
        default="",
        metavar="A,B",
        help="Secrets in each R1Deployment's namespace to pull engine and gateway images with",
    )
    add("--hardware-profiles", type=Path, metavar="FILE", help="YAML list of further hardware profiles")
    add("--fabric-label", default=DEFAULT_FABRIC_LABEL, help="node label whose value names a fast network domain")
    add(
        "--network-policies",
        type=Path,
        metavar="FILE",
        help="make NetworkPolicies; YAML lists of NetworkPolicyPeers: `operator`, and `metrics` for what scrapes them",
    )
    add(
        "--host-path-prefixes",
        default=",".join(DEFAULT_PREFIXES),
        metavar="/A,/B",
        help="folders of the nodes that an R1Deployment may mount, with all below; default: %(default)s",
    )
    add(
        "--adopt-defaults",
        choices=("Never", "Staggered"),
        default="Never",
        help="what to do with revisions that an earlier operator made and this one would make otherwise of the same "
        "spec (another default image, planner or profile): leave them, or replace them, one R1Deployment at a time",
    )
    add(
        "--node-conditions",
        default="",
        metavar="A,B",
        help="types of node conditions which, while True, say that a node is better not used",
    )
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    add("--port", type=int, default=PORT_OPERATOR, help="port of /healthz, /readyz and /metrics")
    add("--kubeconfig", metavar="FILE", help="reach the cluster from outside it")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _read_profiles(file: Path | None) -> dict[str, Profile]:
    if file is None:
        return {}
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    except (OSError, yaml.YAMLError) as error:
        raise OptionError(f"--hardware-profiles {file}: {error}; it must be a readable YAML list") from error
    if not isinstance(entries, list):
        raise OptionError(
            f"--hardware-profiles {file}: a list of profiles is needed, this is a {type(entries).__name__}"
        )
    given: list[tuple[str, HardwareProfile]] = []
    for position, entry in enumerate(entries):
        path = f"[{position}]"
        if not isinstance(entry, dict):
            raise OptionError(f"--hardware-profiles {file}: {path} is no profile; see kubectl explain r1d.spec")
        profile = parse_hardware_profile(entry, path)
        if isinstance(profile, list):
            raise OptionError(f"--hardware-profiles {file}: {'; '.join(str(problem) for problem in profile)}")
        given.append((path, profile))
    whole = resolve_all(given, built_in_profiles())
    if isinstance(whole, Refusal):
        raise OptionError(f"--hardware-profiles {file}: {whole}")
    return whole


def _read_reach(file: Path | None) -> Reach | None:
    if file is None:
        return None
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise OptionError(f"--network-policies {file}: {error}; it must be readable YAML") from error
    peers: dict[str, tuple[dict[str, object], ...]] = {}
    for field in ("operator", "metrics"):
        listed = content.get(field) or [] if isinstance(content, dict) else None
        if not isinstance(listed, list) or not all(isinstance(peer, dict) and peer for peer in listed):
            raise OptionError(
                f"--network-policies {file}: {field} must be a list of NetworkPolicyPeers, none of them empty"
            )
        peers[field] = tuple(listed)
    if not peers["operator"]:
        raise OptionError(
            f"--network-policies {file}: operator is empty; without a peer it could reach none of its pods"
        )
    return Reach(**peers)


def _read_prefixes(text: str) -> tuple[str, ...]:
    prefixes = tuple(prefix.strip() for prefix in text.split(",") if prefix.strip())
    wrong = [prefix for prefix in prefixes if not prefix.startswith("/") or ".." in prefix.split("/")]
    if wrong:
        raise OptionError(f"--host-path-prefixes: {wrong[0]!r} is no absolute path without '..'; / allows everything")
    return prefixes
