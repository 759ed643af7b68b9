"""One question to the simulator, and its answer: which requests, which fleet, what goes wrong, and who decides."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from r1_operator.planning.catalog import find_model
from r1_operator.planning.hardware import built_in_hardware
from r1_operator.planning.make import plan_wishes
from r1_operator.planning.plan import Plan
from r1_operator.planning.wishes import Wishes

from .baselines import Hpa, Keda, LoadPlanner, Stabilized, kv_usage, waiting
from .controllers import Operator
from .fleet import Controller, Fleet, Machine, Start
from .outcome import Outcome, Targets, outcome
from .requests import Requests
from .speed import Speed, speed_of


@dataclass(frozen=True, slots=True)
class Believed:
    """How far what the operator believes is off, and what breaks. `speed`: a replica's true one over the planned;
    `start`: a start's true time over the believed; `lost`: share of scrapes; `deaths`: replicas an hour."""

    speed: float = 1.0
    start: float = 1.0
    lost: float = 0.0
    deaths: float = 0.0


@dataclass(frozen=True, slots=True)
class Question:
    """`most`: replicas that may be; `first`: that serve at the begin. Measured from `since` to `until`, in seconds."""

    requests: Requests
    until: float
    targets: Targets = field(default_factory=Targets)
    model: str = "deepseek-ai/DeepSeek-R1-0528"
    hardware: str = "H100x8"
    start_seconds: float = 600.0
    start_sigma: float = 0.1
    least: int = 1
    most: int = 12
    first: int = 4
    since: float = 0.0
    seed: int = 0
    truth: Believed = field(default_factory=Believed)
    autoscaling: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """`trail`: each half minute of an operator's run: seconds, serving, held, needed, the forecast's bound, wanted."""

    who: str
    outcome: Outcome
    requests: Requests
    said: tuple[tuple[float, int, str, str], ...] = ()
    trail: tuple[tuple[float, int, int, float, float, int], ...] = ()


def planned(question: Question) -> tuple[Plan, Speed]:
    """The plan of a replica, and its speed as the planner estimates it."""
    return planned_as(question.model, question.hardware)


def planned_as(model_name: str, hardware: str, **wishes: Any) -> tuple[Plan, Speed]:
    """The same with wishes of its own (planning/wishes.py). Raises ValueError for what is not known or does not fit."""
    model, profile = find_model(model_name), built_in_hardware().get(hardware)
    if model is None or profile is None:
        raise ValueError(f"--model {model_name} --hardware {hardware}: not known; see r1 plan --help")
    plan = plan_wishes(Wishes(model=model, profile=profile, **wishes))
    if not isinstance(plan, Plan):
        raise ValueError(str(plan))
    return plan, speed_of(plan, model, profile)


def spec_of(question: Question) -> dict[str, Any]:
    """The R1Deployment that the simulated operator serves."""
    targets = question.targets
    return {
        "model": {"name": question.model, "weights": {"hostPath": {"path": "/models"}}},
        "hardware": question.hardware,
        "replicas": question.first,
        "objective": "SLO",
        "slo": {
            "ttftMilliseconds": round(1000 * targets.ttft_seconds),
            "tpotMilliseconds": round(1000 * targets.tpot_seconds),
        },
        "strategy": {"minReadySeconds": 0},
        "autoscaling": {
            "minReplicas": question.least,
            "maxReplicas": question.most,
            "startupSeconds": round(question.start_seconds),
            **question.autoscaling,
        },
    }


def operator_of(question: Question, plan: Plan) -> Operator:
    """With room for as many replicas as may be, for drains beside them."""
    rng = random.Random(f"scrapes-{question.seed}")
    lost = question.truth.lost

    def hears(_: Machine) -> bool:
        return rng.random() >= lost

    nodes = 2 * plan.nodes_per_replica * question.most
    return Operator(spec_of(question), nodes, hears=hears)


def deaths(question: Question) -> Callable[[Fleet], None] | None:
    """Replicas that die on their own, as many an hour as asked, all their requests with them."""
    if not question.truth.deaths:
        return None
    rng = random.Random(f"deaths-{question.seed}")
    coming = [rng.expovariate(question.truth.deaths / 3600)]

    def strike(fleet: Fleet) -> None:
        if fleet.now >= coming[0]:
            coming[0] = fleet.now + rng.expovariate(question.truth.deaths / 3600)
            if serving := sorted(fleet.serving(), key=lambda m: m.name):
                fleet.kill(rng.choice(serving))

    return strike


def baseline(who: str, question: Question, tokens_per_second: float) -> Controller:
    """By name; `tokens_per_second`: what profiling found a replica to carry."""
    least, most, first = question.least, question.most, question.first
    made: dict[str, Callable[[], Controller]] = {
        "hpa-kv": lambda: Hpa(kv_usage, 0.7, Stabilized(least, most), first),
        "hpa-queue": lambda: Hpa(waiting, 8.0, Stabilized(least, most), first),
        "keda-queue": lambda: Keda(8.0, Stabilized(least, most), first),
        "planner": lambda: LoadPlanner(tokens_per_second, least, most, first),
        "planner-trend": lambda: LoadPlanner(tokens_per_second, least, most, first, trend=True),
    }
    return made[who]()


BASELINES = ("hpa-kv", "hpa-queue", "keda-queue", "planner", "planner-trend")


def ask(question: Question, who: str, controller: Controller, speed: Speed) -> Answer:
    """Run it. The fleet is as fast as the truth says, whatever was planned."""
    requests, truth = question.requests.again(), question.truth
    start = Start(question.start_seconds * truth.start, question.start_sigma)
    fleet = Fleet(speed.scaled(truth.speed), requests, controller, start, seed=question.seed, faults=deaths(question))
    fleet.play(question.until)
    found = outcome(fleet, question.targets, question.since, question.until)
    if isinstance(controller, Operator):
        return Answer(who, found, requests, tuple(controller.said), tuple(controller.trail))
    return Answer(who, found, requests)
