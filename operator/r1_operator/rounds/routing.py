"""Which replicas the gateways are told to route to. Make before break: one leaves only for others in rotation.

Two models never answer behind one name. Replicas of another model stand by until as many of them are ready as of the
one that serves, or as are wanted; then all requests go to them at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ..api import names
from ..lifecycle.actions import Decision, ReplicaView
from ..lifecycle.gangs import GangState
from ..manifests.template import Template
from .facts import Facts
from .revisions import Revisions

_OUT_OF_ROTATION = frozenset({"Draining", "Failed"})
QUIET_SECONDS = 30.0
"""A replica that is not ready and says nothing stays in the list for so long: the gateways' own look at it, every
second, knows better whether it answers."""


def workers(facts: Facts, decision: Decision, answering: frozenset[str]) -> frozenset[str]:
    """URLs of node 0 of the gangs that may get requests: of those revisions that answer now (`answering`).

    Ready ones, but for those whose own agent says otherwise: it knows before the kubelet's probe does. One that was
    ready and is silent stays while it may be a blink, and as long as there is no other: a gateway sends nothing to a
    replica that does not answer, but it cannot send to one that it is not told of.
    """
    views = [v for v in decision.replicas if v.gang is not None and v.revision in answering]
    ready = [v for v in views if v.name in decision.serving and not _out(facts, v)]
    unready = [v for v in views if v.state is GangState.UNREADY and not _out(facts, v)]
    quiet = [v for v in unready if not ready or facts.engines.silence.get(v.name, 0.0) < QUIET_SECONDS]
    return frozenset(v.gang.url for v in (*ready, *quiet) if v.gang is not None and v.gang.url is not None)


def _out(facts: Facts, view: ReplicaView) -> bool:
    heard = facts.engines.heard.get(view.name)
    return heard is not None and heard.stage in _OUT_OF_ROTATION


# --- one model at a time ---------------------------------------------------------------------------------------------
def answering(
    facts: Facts, decision: Decision, found: Revisions, templates: Mapping[str, Template], wanted: int
) -> frozenset[str]:
    """Revisions whose gangs answer now: all that serve the same model by the same name.

    The one that the gateways have now goes on answering until the wanted one has as many ready replicas, or has proven
    itself with as many as are wanted; a revision that nobody knows any more is taken for what the others are.
    """
    ready = [v for v in decision.replicas if v.name in decision.serving]
    models = {v.revision: _model(v.revision, templates) for v in decision.replicas if v.revision}
    if len(set(models.values()) - {""}) < 2 or found.wanted is None:
        return frozenset(models)
    count = Counter(models[v.revision] for v in ready if v.revision in models)
    to, now = found.wanted.served, _answers_now(facts, models)
    others = {model: n for model, n in count.items() if model != to}
    old = now if now and now != to else max(sorted(others), key=lambda m: others[m], default="")
    if now == to:
        chosen = to if count[to] or not others else old
    else:
        enough = count[to] > 0 and found.proven and count[to] >= min(wanted, count[old])
        chosen = to if enough or not count[old] else old
    return frozenset(revision for revision, model in models.items() if model in {chosen, ""})


def _model(revision: str, templates: Mapping[str, Template]) -> str:
    return templates[revision].served if revision in templates else ""


def _answers_now(facts: Facts, models: Mapping[str, str]) -> str:
    """What the gateways' own settings, which outlive this operator, say is routed to."""
    told = frozenset(_told(facts.live.get(("ConfigMap", names.gateway_name(facts.name)))))
    routed = [models.get(g.revision, "") for g in facts.gangs if g.url in told]
    return Counter(routed).most_common(1)[0][0] if routed else ""


def _told(config_map: Mapping[str, Any] | None) -> Iterable[str]:
    try:
        return [str(url) for url in json.loads((config_map or {})["data"][names.GATEWAY_CONFIG_KEY])["workers"]]
    except (KeyError, TypeError, ValueError):
        return []


def served_name(found: Revisions, answers: frozenset[str], templates: Mapping[str, Template], asked: str) -> str:
    """The model's name for clients: of what answers now; before anything does, of what is wanted."""
    if found.wanted is not None and (found.wanted.revision in answers or not answers):
        return str(found.wanted.config["servedName"])
    known = [str(templates[r].config["servedName"]) for r in sorted(answers) if r in templates]
    return known[0] if known else asked
