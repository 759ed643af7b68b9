"""A cluster of values: applies the lifecycle's actions to gangs and lets time, starts and faults happen.

It plays the kubelet, the engine, placement and the status, as the lifecycle sees them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from r1_operator.lifecycle.actions import CreateGang, Decision, EndPods
from r1_operator.lifecycle.decide import Observed, Wanted, next_actions
from r1_operator.lifecycle.gangs import Gang, GangState, Member, Termination, state_of
from r1_operator.lifecycle.records import Record, records_of
from r1_operator.status.observation import Finding, Observation
from r1_operator.status.replicas import replica_statuses

DRAIN_SECONDS = 60.0


@dataclass
class SimulatedCluster:
    """`nodes` are whole and equal; a gang takes `size` of them."""

    nodes: set[str]
    wanted: Wanted
    now: float = 1_000_000.0
    pods: dict[str, tuple[str, Member]] = field(default_factory=dict)  # name → (revision, member)
    sizes: dict[str, int] = field(default_factory=dict)  # gang → size
    statuses: dict[str, object] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    created: list[str] = field(default_factory=list)

    def gangs(self) -> tuple[Gang, ...]:
        groups: dict[str, list[tuple[str, Member]]] = {}
        for revision, member in self.pods.values():
            groups.setdefault(member.name.rsplit("-", 1)[0], []).append((revision, member))
        found = [
            Gang(
                name,
                int(name.split("-")[1]),
                int(name.split("-")[2]),
                self.sizes[name],
                members[0][0],
                tuple(sorted((m for _, m in members), key=lambda m: m.index)),
            )
            for name, members in groups.items()
        ]
        return tuple(sorted(found, key=lambda g: (g.replica, g.attempt)))

    def free(self) -> list[str]:
        held = {m.holds for _, m in self.pods.values()}
        return sorted(self.nodes - self.dead - held)

    def records(self) -> dict[int, Record]:
        return records_of(self.statuses.values())  # type: ignore[arg-type]

    def reconcile(self, *, crash_after: int | None = None) -> Decision:
        """One round. With `crash_after`, the operator dies after so many writes: no status, no placement."""
        observed = Observed(
            gangs=self.gangs(),
            records=self.records(),
            dead_nodes=dict.fromkeys(self.dead, "gone"),
            room=len(self.free()) // self.wanted.size,
        )
        decision = next_actions(self.wanted, observed, self.now)
        writes = self._writes(decision)
        for write in writes if crash_after is None else writes[:crash_after]:
            write()
        if crash_after is None:
            self._place(decision)
            self._record(decision)
        return decision

    def _writes(self, decision: Decision) -> list:  # type: ignore[type-arg]
        writes = []
        for action in decision.actions:
            if isinstance(action, EndPods):
                writes += [lambda p=pod.name, g=action.grace_seconds: self._delete(p, g) for pod in action.pods]
            else:
                writes += [lambda a=action, i=i: self._create(a, i) for i in action.members]
        return writes

    def _create(self, action: CreateGang, index: int) -> None:
        gang = f"{self.wanted.name}-{action.replica}-{action.attempt}"
        name = f"{gang}-{index}"
        assert name not in self.pods, f"{name} is created while it exists"
        record = self.records().get(action.replica)
        assert record is None or action.attempt >= record.attempt, f"{gang} goes back behind {record}"
        self.sizes.setdefault(gang, self.wanted.size)
        self.created.append(name)
        member = Member(name, name, index, True, None, None, None, "Pending", False, 0.0, self.now)
        self.pods[name] = (self.wanted.revision, member)

    def _delete(self, name: str, grace: float | None) -> None:
        revision, member = self.pods[name]
        grace = DRAIN_SECONDS if grace is None else grace
        if member.node is None or member.finished or grace == 0:
            del self.pods[name]
            return
        deadline = self.now + grace
        if member.delete_deadline is not None:
            deadline = min(deadline, member.delete_deadline)
        self.pods[name] = (revision, replace(member, delete_deadline=deadline))

    def _place(self, decision: Decision) -> None:
        for gang in decision.unplaced:
            free = self.free()
            pins = [m.pinned for m in gang.members if m.pinned]
            if len(free) < gang.size - len(pins):
                continue
            for member in gang.members:
                node = member.pinned or free.pop(0)
                revision, _ = self.pods[member.name]
                self.pods[member.name] = (revision, replace(member, gated=False, pinned=node, node=node))

    def _record(self, decision: Decision) -> None:
        unknown = Finding("Unknown", "Starting", "")  # type: ignore[arg-type]
        observation = Observation(1, None, "", self.wanted.replicas, unknown, unknown, unknown, decision=decision)
        entries = replica_statuses(self.statuses, observation, self.now)  # type: ignore[arg-type]
        self.statuses = {entry.name: entry for entry in entries}

    # --- time and faults ---------------------------------------------------------------------------------------------
    def advance(self, seconds: float) -> None:
        """Starts finish, drains end, kubelets that live confirm deletions."""
        self.now += seconds
        for name, (revision, member) in list(self.pods.items()):
            if member.node in self.dead:
                continue
            if member.delete_deadline is not None and self.now >= member.delete_deadline:
                del self.pods[name]
            elif member.node and not member.finished and not member.deleting and not member.ready:
                self.pods[name] = (revision, replace(member, phase="Running", ready=True, changed_at=self.now))

    def kill(self, name: str, code: int = 70, *, peers_follow: bool = True) -> None:
        """A member's container ends; usually its peers follow, as the engine sees to it."""
        gang = name.rsplit("-", 1)[0]
        for other, (revision, member) in list(self.pods.items()):
            if other.rsplit("-", 1)[0] != gang or member.node is None or member.node in self.dead or member.finished:
                continue
            if other != name and not peers_follow:
                continue
            end = Termination(code, "RankDied" if other == name else "PeerDied", "injected", self.now)
            self.pods[other] = (revision, replace(member, phase="Failed", ready=False, termination=end))

    def lose_node(self, node: str) -> None:
        self.dead.add(node)

    def remove(self, name: str, grace: float | None) -> None:
        """A user deletes a pod."""
        self._delete(name, grace)

    def ready(self) -> list[Gang]:
        return [g for g in self.gangs() if not g.missing and all(m.ready and not m.deleting for m in g.members)]

    def state_of(self, gang: Gang) -> GangState:
        return state_of(gang, dict.fromkeys(self.dead, "gone"), self.wanted.start_seconds, self.now)
