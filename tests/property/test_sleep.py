"""`minReplicas: 0` under what goes wrong: nobody is put to sleep who might be needed, and whoever asks is served.

Replicas that are busy, idle or silent, looks that are missed, operators that restart and forget, statuses that are
lost, clocks that are off: an idle replica leaves only after an idle time that was seen from its begin to its end.
"""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from r1_operator.api.reasons import Reason
from r1_operator.api.types import R1DeploymentStatus
from r1_operator.autoscaling.history import fold
from r1_operator.autoscaling.idle import GAP_SECONDS, LATEST_SECONDS
from r1_operator.autoscaling.window import ReplicaLoad, Sample, trimmed
from r1_simulate.cluster import SimulatedCluster, spec_of

IDLE_SECONDS, STEP = 60, 5.0
SLEEPY = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": IDLE_SECONDS, "startupSeconds": 30}


class Sleeper(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = SimulatedCluster(spec_of(autoscaling=SLEEPY))
        self.true = self.cluster.now
        self.busy_at = self.true
        """When it was last not seen to be idle, by a clock that is right."""
        self.seen_at = self.true
        self.ended = 0
        self.cluster.settle(4)

    # --- time ---------------------------------------------------------------------------------------------------------
    def _live(self, seconds: float, kind: str, asked: bool = False) -> None:
        for _ in range(int(seconds / STEP)):
            cluster = self.cluster
            serving = cluster.serving()
            if kind == "busy":
                self.ended += 1
            running = 3 if kind == "busy" else 0
            load = tuple(
                ReplicaLoad(0.1 * running, 40.0 * running, running, 0, ended=self.ended, name=g) for g in serving
            )
            if serving and kind != "unseen":
                silent = kind == "silent"
                now = cluster.now + cluster.skew  # the monitor's clock is that of the rounds
                sample = Sample(now, () if silent else load, len(serving) if silent else 0)
                cluster.window = trimmed((*cluster.window, sample), now)
                cluster.minutes = fold(cluster.minutes, cluster.window, now)
            self._note(kind)
            cluster.asked = 1.0 if asked else None
            before, gangs = cluster.status.desired_replicas, set(cluster.machines.gangs())
            round_ = cluster.reconcile()
            decision = round_.scaling.decision
            if before and decision is not None and decision.reason == Reason.IDLE:
                assert not asked, "put to sleep before those who ask"
                assert self.true - self.busy_at >= IDLE_SECONDS - STEP, "put to sleep although it might be needed"
                assert self.true - self.seen_at <= LATEST_SECONDS, "put to sleep unseen"
            if before == 0 and not asked and round_.scaling.in_force == 0:
                assert set(cluster.machines.gangs()) <= gangs, "woken by nobody"
            cluster.advance(STEP)
            self.true += STEP

    def _note(self, kind: str) -> None:
        """What counts against its being idle: and a time without a look, unless counts around it tell."""
        if kind == "unseen":
            return
        if kind != "idle" or self.true - self.seen_at > GAP_SECONDS:
            self.busy_at = self.true
        self.seen_at = self.true

    @rule(seconds=st.sampled_from([5, 30, 90]))
    def it_is_busy(self, seconds: int) -> None:
        self._live(seconds, "busy")

    @rule(seconds=st.sampled_from([5, 30, 55, 120]))
    def it_is_idle(self, seconds: int) -> None:
        self._live(seconds, "idle")

    @rule(seconds=st.sampled_from([5, 40]))
    def it_is_silent(self, seconds: int) -> None:
        self._live(seconds, "silent")

    @rule(seconds=st.sampled_from([20, 70]))
    def nobody_looks(self, seconds: int) -> None:
        self._live(seconds, "unseen")

    @rule()
    def somebody_asks(self) -> None:
        self._live(10, "idle", asked=True)

    # --- what goes wrong ----------------------------------------------------------------------------------------------
    @rule()
    def another_operator_knows_no_load(self) -> None:
        self.cluster.window, self.cluster.minutes = (), ()
        self.busy_at = self.true

    @rule()
    def the_status_is_lost(self) -> None:
        self.cluster.status = R1DeploymentStatus()
        self.cluster.ran.clear()

    @rule(by=st.sampled_from([-3600.0, 3600.0, 0.0]))
    def the_clock_is_put_right_or_wrong(self, by: float) -> None:
        self.cluster.skew = by

    def teardown(self) -> None:
        """Whoever goes on asking is served."""
        self.cluster.skew = 0.0
        for _ in range(40):
            if self.cluster.serving():
                return
            self._live(STEP, "idle", asked=True)
        raise AssertionError("who asks is not served")


TestSleeper = Sleeper.TestCase
TestSleeper.settings = settings(max_examples=60, stateful_step_count=15, deadline=None, phases=[Phase.generate])
