"""Any resource at all: Python and the API server accept and refuse the same ones, and read the same out of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from r1_operator.api.parse import parse
from r1_operator.api.rules import RULES
from r1_operator.api.types import R1Deployment

from tests.chart.conftest import Server
from tests.chart.drawing import resources

pytestmark = pytest.mark.cluster
RULE_TEXTS = {rule.text for rule in RULES}


@given(resources())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_give_the_same_verdict(with_crd: Server, resource: dict[str, Any]) -> None:
    here, answer = parse(resource), with_crd.dry_run(resource)
    if isinstance(here, R1Deployment):
        event("accepted")
        assert answer["kind"] == "R1Deployment", answer["message"]
        there = parse(answer)
        assert isinstance(there, R1Deployment), there
        assert there.spec == here.spec
        return
    assert answer["kind"] == "Status", f"Python refuses what the API server takes: {[str(p) for p in here]}"
    ours = {(problem.field, f"{problem.message}; {problem.remedy}") for problem in here}
    if all(text in RULE_TEXTS for _, text in ours):
        event("rules broken")
        theirs = {
            (c["field"], text) for c in answer["details"]["causes"] for text in RULE_TEXTS if text in c["message"]
        }
        assert theirs == ours
    else:
        event("fields wrong")
