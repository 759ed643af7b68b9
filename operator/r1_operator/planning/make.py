"""`make_plan`: a resource's spec and the hardware profiles in, a Plan or a Refusal out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING

from .catalog import TINY, find_model, known_models
from .deepep import DISPATCH_VARIABLE
from .engine_args import environment, render
from .expected import expected
from .explain import reasons
from .hardware import Hardware, built_in_hardware, built_in_profiles, figures_of
from .layout import AllToAll
from .overrides import DRAFT, GRAPH_BATCH, KV_CAP, KV_DTYPE, KV_DTYPES, argument_problem, count_of, flags, value_of
from .plan import Plan, Refusal
from .search import Found, search
from .sizing import CPU_FRACTION, HARDWARE, own_context
from .wishes import Slo, Wishes

if TYPE_CHECKING:  # its import takes most of the command line's start
    from r1_operator.api.spec import R1DeploymentSpec

GPUS_OF_A_WHOLE_NODE = 8
PLANS_KEPT = 256  # an operator asks again in each of its rounds, and a promise to keep takes a tenth of a second


def make_plan(spec: R1DeploymentSpec, profiles: Mapping[str, Hardware] | None = None) -> Plan | Refusal:
    """The plan of one replica of `spec`. `profiles` default to the built-in ones; spec.hardwareProfile comes first."""
    wishes = read_wishes(spec, built_in_profiles() if profiles is None else profiles)
    plan = wishes if isinstance(wishes, Refusal) else _plan_once(wishes)
    if isinstance(plan, Plan) and plan.needs_rdma and spec.engine.fabric.transport == "Tcp":
        return Refusal(
            "spec.engine.fabric.transport",
            f"{plan.layout.describe()} over {plan.nodes_per_replica} nodes needs RDMA: DeepEP does not run over TCP",
            "set spec.topology.moeA2aBackend None, or leave the transport out",
        )
    return plan


def read_wishes(spec: R1DeploymentSpec, profiles: Mapping[str, Hardware]) -> Wishes | Refusal:
    """What the spec fixes, in the planner's terms."""
    settled = settle(spec, profiles)
    if isinstance(settled, Refusal):
        return settled
    spec, profile = settled
    model = find_model(spec.model.planned_as)
    if model is None:
        field = "spec.model.baseModel" if spec.model.base_model else "spec.model.name"
        return unknown_model(field, spec.model.planned_as, known_models())
    problem = argument_problem(spec.engine.args)
    if problem is not None:
        return problem
    dispatched = _dispatch_tokens(spec)
    if isinstance(dispatched, Refusal):
        return dispatched
    topology, limits, extra = spec.topology, spec.limits, spec.engine.args
    percent = limits.memory_fraction_percent
    return Wishes(
        model=model,
        profile=figures_of(profile),
        goal=spec.objective,
        slo=Slo() if spec.slo is None else Slo(spec.slo.ttft_milliseconds, spec.slo.tpot_milliseconds),
        nodes=topology.nodes_per_replica,
        tensor_parallel=topology.tensor_parallel,
        attention_dp=topology.attention_data_parallel,
        expert_parallel=topology.expert_parallel,
        redundant_experts=topology.redundant_experts,
        all_to_all=None if topology.moe_a2a_backend is None else AllToAll(topology.moe_a2a_backend),
        draft=True if DRAFT in flags(extra) else None,
        context_length=limits.context_length,
        max_running_requests=limits.max_running_requests,
        memory_fraction=None if percent is None else percent / 100,
        chunked_prefill_size=limits.chunked_prefill_size,
        kv_itemsize=KV_DTYPES[value_of(extra, KV_DTYPE) or "auto"],
        kv_token_cap=count_of(extra, KV_CAP),
        graph_batch=count_of(extra, GRAPH_BATCH),
        dispatch_tokens=dispatched,
        over_tcp=spec.engine.fabric.transport == "Tcp",
        extra_args=extra,
    )


def settle(spec: R1DeploymentSpec, profiles: Mapping[str, Hardware]) -> tuple[R1DeploymentSpec, Hardware] | Refusal:
    """The hardware profile of `spec`, whole, and the spec with what that profile says of the engine's pods under what
    spec.engine says of them."""
    from .profiles import Profile, with_own  # here: their import takes most of the command line's start

    known = with_own(spec, profiles)
    if isinstance(known, Refusal):
        return known
    profile = find_profile(spec.hardware, known)
    if isinstance(profile, Profile):
        return spec.model_copy(update={"engine": profile.under(spec.engine)}), profile
    return profile if isinstance(profile, Refusal) else (spec, profile)


def _dispatch_tokens(spec: R1DeploymentSpec) -> int | Refusal | None:
    """DeepEP's limit, if the user's environment sets it."""
    text = next((variable.value for variable in spec.engine.env if variable.name == DISPATCH_VARIABLE), None)
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return Refusal(
        "spec.engine.env",
        f"{DISPATCH_VARIABLE} is a whole number of tokens, not {text!r}",
        "correct it, or leave it out",
    )


def plan_wishes(wishes: Wishes) -> Plan | Refusal:
    """The best plan that keeps every wish, or why there is none, with the nearest thing that works."""
    found = search(wishes)
    if isinstance(found, Refusal):
        return _with_nearest(wishes, found)
    return build(wishes, found)


def _with_nearest(wishes: Wishes, refusal: Refusal) -> Refusal:
    """For want of memory: the nearest thing that works, looked for and not guessed."""
    if refusal.field != HARDWARE:
        return refusal
    free = replace(wishes.any_layout(), nodes=None, cluster_nodes=None)
    more = search(replace(free, all_to_all=None))
    if isinstance(more, Found):
        where = f"{more.best.nodes} node(s)" if more.best.nodes != wishes.nodes else "the same nodes"
        return replace(
            refusal, remedy=f"what works is {more.best.layout.describe()} on {where} of {wishes.profile.name}"
        )
    smallest = _smallest_hardware(free)
    return refusal if smallest is None else replace(refusal, remedy=f"the smallest that works is {smallest}")


def _smallest_hardware(free: Wishes) -> str | None:
    """The built-in profile of least memory on which one node is enough, or else the fewest nodes of eight GPUs."""
    kind = [p for p in built_in_hardware().values() if p.device == free.profile.device]
    kind.sort(key=lambda p: p.gpus_per_node * p.usable_memory_mib)
    for profile in kind:
        if isinstance(search(replace(free, profile=profile, nodes=1)), Found):
            return profile.name
    for profile in (p for p in kind if p.gpus_per_node == GPUS_OF_A_WHOLE_NODE):
        found = search(replace(free, profile=profile))
        if isinstance(found, Found):
            return f"{min(c.nodes for c in (found.best, *found.sizes))} nodes of {profile.name}"
    return None


_plan_once = lru_cache(maxsize=PLANS_KEPT)(plan_wishes)


def build(wishes: Wishes, found: Found) -> Plan:
    """A found candidate as a full plan."""
    best, profile = found.best, wishes.profile
    cpu = profile.device == "Cpu"
    return Plan(
        model=wishes.model.name,
        hardware=profile.name,
        device="cpu" if cpu else "cuda",
        resource_name=profile.resource_name,
        nodes_per_replica=best.nodes,
        gpus_per_node=profile.gpus_per_node,
        layout=best.layout,
        limits=best.limits,
        memory=best.memory,
        kv_tokens_per_rank=best.kv_tokens,
        sglang_version=wishes.sglang_version,
        engine_args=render(
            wishes.model,
            best.layout,
            best.limits,
            fraction=CPU_FRACTION if cpu and wishes.memory_fraction is None else best.memory.fraction,
            role=wishes.role,
            cpu=cpu,
            extra=wishes.extra_args,
            version=wishes.sglang_version,
        ),
        env=environment(wishes.model, best.layout, best.limits, wishes.role, cpu=cpu),
        reasons=reasons(wishes, found),
        estimate=best.estimate,
        expected=expected(profile, wishes.model, best.layout),
        own_context=own_context(wishes),
        sizes=tuple(candidate.size for candidate in found.sizes),
        role=wishes.role,
        network_gbits_per_node=profile.network_gbits_per_second,
    )


def find_profile(name: str, profiles: Mapping[str, Hardware]) -> Hardware | Refusal:
    """The profile of that name."""
    if name in profiles:
        return profiles[name]
    kind, _, count = name.rpartition("x")
    whole = f"{kind}x{GPUS_OF_A_WHOLE_NODE}"
    if whole in profiles and count.isdecimal() and int(count) > GPUS_OF_A_WHOLE_NODE:
        nodes = -(-int(count) // GPUS_OF_A_WHOLE_NODE)
        return Refusal(
            "spec.hardware",
            f"{name!r} is not known: a profile is one node of at most {GPUS_OF_A_WHOLE_NODE} GPUs",
            f"use {whole} and, to fix their number, {nodes} nodes per replica",
        )
    return _unknown("spec.hardware", name, tuple(profiles), "or describe it in spec.hardwareProfile")


def unknown_model(field: str, name: str, known: tuple[str, ...]) -> Refusal:
    """A model name that is not in the catalogue."""
    return _unknown(field, name, known, "or name the known model it has the shape of in spec.model.baseModel")


def _unknown(field: str, name: str, known: tuple[str, ...], otherwise: str) -> Refusal:
    lower = {entry.lower(): entry for entry in known}
    near = [lower[match] for match in get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    offer = f"did you mean {' or '.join(near)}" if near else f"known are {', '.join(n for n in known if n != TINY)}"
    return Refusal(field, f"{name!r} is not known", f"{offer}; {otherwise}")
