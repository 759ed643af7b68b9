"""The trial of a new revision by its first replica: it goes on, has passed, or has failed and is taken back."""

from __future__ import annotations

from collections.abc import Mapping

from ..api.reasons import Reason
from ..api.timestamps import unix_time
from ..api.types import Canary
from ..lifecycle.gangs import Gang
from ..lifecycle.judging import Evidence, Verdict
from ..lifecycle.records import restarts_of
from ..status.observation import Finding, Trial
from .facts import Facts
from .revisions import Revisions, ready_for

ENOUGH_REQUESTS = 20
"""Fewer tell nothing of a mean."""
ENOUGH_FAILURES = 3
"""Fewer may be chance. A router takes a replica that fails again and again out of its rotation after about five."""
RESTARTS = 2
"""A canary that had to be started again so often is not going to serve."""
USUAL_MARGIN_SECONDS = 600
"""Beyond `startup.seconds`: the default of `strategy.progressDeadlineSeconds`."""


def trial(
    facts: Facts, found: Revisions, verdicts: Mapping[str, Verdict], evidence: Evidence, now: float
) -> Trial | None:
    """How the change to what the spec asks for stands; None: nothing can be planned."""
    asked, spec = found.asked, facts.subject.spec
    if asked is None or spec is None:
        return None
    before, canary = facts.subject.status.rollout, spec.strategy.canary
    same = before if before is not None and before.revision == asked.revision else None
    if same is not None and same.canary == "Aborted" and found.aborted:
        return Trial(asked.revision, "Aborted", same.message)
    if canary is None or found.stable in {"", asked.revision}:
        ended = same is not None and same.canary == "Passed"
        return Trial(asked.revision, "Passed" if ended else "None")
    if same is not None and same.canary == "Passed":
        return Trial(asked.revision, "Passed", same.message)
    gangs = [g for g in facts.gangs if g.revision == asked.revision]
    why = next((why for gang in gangs if (why := _fault(facts, canary, gang, verdicts, evidence, now))), None)
    if why is not None:
        return Trial(asked.revision, "Aborted", why)
    served = ready_for(facts, verdicts, evidence, asked.revision, now)
    answered = any(_all_answered(facts, canary, gang) for gang in gangs)
    if served >= spec.strategy.trial_seconds and answered:
        return Trial(asked.revision, "Passed", f"served for {spec.strategy.trial_seconds} s")
    return Trial(asked.revision, "Running")


def _fault(
    facts: Facts, canary: Canary, gang: Gang, verdicts: Mapping[str, Verdict], evidence: Evidence, now: float
) -> str | None:
    verdict, record = verdicts[gang.name], evidence.records.get(gang.replica)
    if verdict.failure is not None:
        restarts = restarts_of(gang, verdict.state, record, now)
        if restarts >= RESTARTS or verdict.failure.configuration:
            return f"{gang.name} failed, {verdict.failure.reason}: {verdict.failure.message}"
    wrong = next((text for text in facts.engines.answers.get(gang.name, {}).values() if text), None)
    if wrong is not None:
        return f"{gang.name} {wrong}"
    served = facts.engines.served.get(gang.name)
    if served is None or served.requests == 0:
        return None
    percent = 100 * served.failed / served.requests
    if percent > canary.max_error_percent and served.failed >= ENOUGH_FAILURES:
        most = f"spec.strategy.canary.maxErrorPercent allows {canary.max_error_percent}"
        return f"{gang.name} failed {served.failed} of {served.requests} requests; {most}"
    limit, mean = canary.max_first_token_milliseconds, served.first_byte_milliseconds
    if limit is not None and mean is not None and mean > limit and served.requests >= ENOUGH_REQUESTS:
        most = f"spec.strategy.canary.maxFirstTokenMilliseconds allows {limit}"
        return f"{gang.name} took {mean:.0f} ms to the first byte on average; {most}"
    return None


def _all_answered(facts: Facts, canary: Canary, gang: Gang) -> bool:
    answers = facts.engines.answers.get(gang.name, {})
    return all(question.ask in answers for question in canary.questions)


def told(facts: Facts, found: Revisions, state: Trial | None, updated: int, wanted: int, now: float) -> list[Finding]:
    """What keeps a change from coming true, beside what the lifecycle says of it."""
    spec, before = facts.subject.spec, facts.subject.status.rollout
    if state is None or spec is None:
        return []
    if state.state == "Aborted":
        back = f"revision {found.stable} is kept" if found.stable else "there is nothing to go back to"
        remedy = "change the spec, or take the change back with `r1 rollout undo`"
        message = f"the trial of revision {state.revision} failed: {state.message}; {back}; {remedy}"
        return [Finding("False", Reason.CANARY_ABORTED, message)]
    if spec.paused or updated >= wanted or before is None or before.revision != state.revision:
        return []
    since = unix_time(before.progressed_at)
    limit = spec.strategy.progress_deadline_seconds or spec.startup.seconds + USUAL_MARGIN_SECONDS
    if since is None or now - since < limit:
        return []
    message = (
        f"no replica of revision {state.revision} has become ready for {limit} s "
        "(spec.strategy.progressDeadlineSeconds); see replicaStatuses, or take the change back with `r1 rollout undo`"
    )
    return [Finding("False", Reason.PROGRESS_DEADLINE_EXCEEDED, message)]
