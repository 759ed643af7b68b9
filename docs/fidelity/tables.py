"""Writes the tables of this folder's page from manifests.yaml and verdicts.yaml. `--check` fails if it is out of date.

python -m docs.fidelity.tables [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from docs.planning.tables import markdown, written

HERE = Path(__file__).parent
SECTIONS = {
    "workload": "The group of pods",
    "pod": "The pod",
    "container": "The engine's container",
    "resources": "Resources",
    "volumes": "Volumes",
    "probes": "Probes",
    "env": "Environment",
    "arguments": "Arguments of the engine",
    "front": "What is in front of the engines",
}
VERDICTS = ("same", "said", "not needed", "missing")
MANIFESTS: Mapping[str, Mapping[str, Any]] = yaml.safe_load((HERE / "manifests.yaml").read_text(encoding="utf-8"))
OURS: Mapping[str, Mapping[str, Mapping[str, str]]] = yaml.safe_load(
    (HERE / "verdicts.yaml").read_text(encoding="utf-8")
)


def verdict_of(entry: Mapping[str, str]) -> tuple[str, str]:
    """The one verdict of an entry and what follows it."""
    (verdict,) = (word for word in VERDICTS if word in entry)
    return verdict, entry[verdict]


def sources() -> str:
    """The manifests, with the files they are in."""
    rows = [("name here", "what it is", "files")]
    for name, manifest in MANIFESTS.items():
        where = f"https://github.com/{manifest['repo']}/blob"
        links = (f"[{path.rsplit('/', 1)[1]}]({where}/{commit}/{path})" for path, commit in manifest["files"].items())
        rows.append((name, manifest["about"], f"{manifest['repo']}: {', '.join(links)}"))
    return markdown(rows)


def counts() -> str:
    """How many settings have which verdict."""
    rows = [("", *VERDICTS)]
    for section, title in SECTIONS.items():
        found = [verdict_of(entry)[0] for entry in OURS[section].values()]
        rows.append((title, *(str(found.count(verdict)) for verdict in VERDICTS)))
    return markdown(rows)


def settings() -> str:
    """Each setting of any manifest, and what ours makes of it."""
    tables = []
    for section, title in SECTIONS.items():
        rows = [("setting", "who has it", "ours", "where, or why not")]
        rows += [_row(section, name, entry) for name, entry in OURS[section].items()]
        tables.append(f"### {title}\n\n{markdown(rows)}\n")
    return "\n" + "\n".join(tables)


def _row(section: str, name: str, entry: Mapping[str, str]) -> tuple[str, str, str, str]:
    having = [f"{who} ({_short(m[section][name])})" for who, m in MANIFESTS.items() if name in m[section]]
    verdict, rest = verdict_of(entry)
    text = f"`{rest}`" if verdict in ("same", "said") else rest
    given = f" ({entry['as']})" if "as" in entry else ""
    note = f"; {entry['note']}" if "note" in entry else ""
    return (
        f"`{name}`" if name.startswith("-") or name.isupper() else name,
        ", ".join(having),
        verdict,
        text + given + note,
    )


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "/")


if __name__ == "__main__":
    tables = {"sources": sources, "counts": counts, "settings": settings}
    sys.exit(written([HERE / "README.md"], tables, "python -m docs.fidelity.tables"))
