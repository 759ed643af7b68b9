"""Puts a canary's questions to it, one after the other, and keeps what is wrong with its answers.

In memory only: after a restart of the operator they are asked again. An answer that does not come is asked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from ..api.types import CanaryQuestion
from ..manifests.keys import Keys
from ..rounds.decide import Round
from ..rounds.facts import Facts
from ..telemetry.http import Failure
from .ports import Engines
from .queue import Key

log = logging.getLogger(__name__)

_SHOWN = 80


class Questions:
    """Answers by R1Deployment, gang and question: empty text if right, else what is wrong."""

    def __init__(self, engines: Engines, keys: Keys, notify: Callable[[Key], None]) -> None:
        self._engines, self._keys, self._notify = engines, keys, notify
        self._answers: dict[Key, dict[str, dict[str, str]]] = {}
        self._asking: dict[Key, asyncio.Task[None]] = {}

    def answers(self, key: Key) -> Mapping[str, Mapping[str, str]]:
        """By gang and question."""
        return {gang: dict(answers) for gang, answers in self._answers.get(key, {}).items()}

    def put(self, key: Key, facts: Facts, round_: Round) -> None:
        """Ask what has not been asked yet of the ready gang on trial; never waits."""
        spec, asked = facts.subject.spec, round_.revisions.asked
        canary = spec.strategy.canary if spec is not None else None
        if canary is None or asked is None or round_.trial is None or round_.trial.state != "Running":
            return
        serving = round_.decision.serving
        gang = next((g for g in facts.gangs if g.revision == asked.revision and g.name in serving), None)
        if gang is None or gang.url is None or not canary.questions or key in self._asking:
            return
        known = self._answers.get(key, {}).get(gang.name, {})
        left = [question for question in canary.questions if question.ask not in known]
        if left:
            name, token = str(asked.config["servedName"]), self._keys.engine(facts.subject.metadata.uid)
            self._asking[key] = asyncio.create_task(self._ask(key, gang.name, gang.url, token, name, left[0]))

    async def _ask(self, key: Key, gang: str, url: str, token: str, model: str, question: CanaryQuestion) -> None:
        try:
            answer = await self._engines.ask(url, token, model, question)
            if isinstance(answer, Failure):
                log.warning("%s/%s: the canary %s did not answer: %s", *key, gang, answer)
            else:
                wrong = _wrong(question, answer)
                self._answers.setdefault(key, {}).setdefault(gang, {})[question.ask] = wrong
        finally:
            self._asking.pop(key, None)
            self._notify(key)

    def forget(self, key: Key) -> None:
        """The R1Deployment is gone."""
        self._answers.pop(key, None)


def _wrong(question: CanaryQuestion, answer: str) -> str:
    if question.expect.lower() in answer.lower():
        return ""
    shown = " ".join(answer.split())
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
    return f'answered "{shown}" to "{question.ask}", which lacks "{question.expect}"'
