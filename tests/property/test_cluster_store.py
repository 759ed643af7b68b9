"""The copy of a kind equals the truth, however a watch, lists and late answers to our own writes come in."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from r1_operator.cluster.resources import CONFIG_MAPS, version_of
from r1_operator.cluster.store import Change, Store

NAMES = st.sampled_from("ab")
Object = dict[str, Any]


class Informed(RuleBasedStateMachine):
    """An API server with its history on one side, a Store on the other; news travel at their own pace in between."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[tuple[str, str], Any] = {}  # what a listener makes of the changes alone
        self.store = Store(CONFIG_MAPS, on_change=self._listen)
        self.version, self.step, self.uids = 1, 1, 0
        self.truth: dict[str, Object] = {}
        self.history: list[tuple[int, str, Object]] = []
        self.read = 0  # the watch has delivered the history up to here
        self.answers: list[Object] = []  # to writes of ours, not handled yet
        self.listing: tuple[list[Object], int, int] | None = None
        self.handled: dict[str, int] = {}

    def _listen(self, change: Change) -> None:
        key = ("ns", change.obj["metadata"]["name"])
        if change.type == "Added":
            assert key not in self.told
        else:
            assert self.told[key] == change.old
            uids = {each["metadata"]["uid"] for each in (change.old, change.new) if each}
            assert len(uids) == 1, "another object by the same name is not the same one changed"
        if change.new is None:
            del self.told[key]
        else:
            self.told[key] = change.new

    def _write(self, kind: str, name: str, uid: str) -> None:
        self.version += self.step
        metadata = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(self.version)}
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"version": str(self.version)}}
        self.history.append((self.version, kind, obj))
        if kind == "DELETED":
            del self.truth[name]
            return
        self.truth[name] = obj
        self.answers.append(obj)  # as if it were all ours; an answer may stay out for ever

    def _new_uid(self) -> str:
        self.uids += 1
        return f"u{self.uids}"

    @initialize(names=st.sets(NAMES), step=st.integers(1, 3))
    def first_list(self, names: set[str], step: int) -> None:
        self.step = step  # above 1: other kinds change in between
        for name in sorted(names):
            self._write("ADDED", name, self._new_uid())
        self.asks_for_a_list()
        self.list_arrives()

    @rule(name=NAMES)
    def creates_or_changes(self, name: str) -> None:
        uid = self.truth[name]["metadata"]["uid"] if name in self.truth else self._new_uid()
        self._write("MODIFIED" if name in self.truth else "ADDED", name, uid)

    @rule(name=NAMES)
    def deletes(self, name: str) -> None:
        if name in self.truth:
            self._write("DELETED", name, self.truth[name]["metadata"]["uid"])

    @precondition(lambda self: self.listing is None and self.read < len(self.history))
    @rule()
    def watch_delivers(self) -> None:
        _, kind, obj = self.history[self.read]
        self.read += 1
        self.store.hear(kind, obj)

    @precondition(lambda self: self.listing is None and self.read == len(self.history))
    @rule()
    def bookmark(self) -> None:
        self.store.hear("BOOKMARK", {"kind": "ConfigMap", "metadata": {"resourceVersion": str(self.version)}})

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answer_arrives(self, data: st.DataObject) -> None:
        answer = self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))
        self.store.put(answer)
        name = answer["metadata"]["name"]
        self.handled[name] = max(self.handled.get(name, 0), version_of(answer))

    @precondition(lambda self: self.listing is None)
    @rule()
    def asks_for_a_list(self) -> None:
        self.listing = (list(self.truth.values()), self.version, len(self.history))

    @precondition(lambda self: self.listing is not None)
    @rule()
    def list_arrives(self) -> None:
        assert self.listing is not None
        items, version, self.read = self.listing
        self.listing = None
        self.store.replace(items, version)

    @invariant()
    def nothing_comes_back_that_was_heard_to_be_gone(self) -> None:
        if self.listing is not None:
            return
        heard = {}
        for _, kind, obj in self.history[: self.read]:
            heard[obj["metadata"]["uid"]] = kind
        held = {obj["metadata"]["uid"] for obj in self.store.objects.values()}
        assert not held & {uid for uid, kind in heard.items() if kind == "DELETED"}

    @invariant()
    def our_own_writes_are_not_forgotten(self) -> None:
        for name, version in self.handled.items():
            ends = [
                v for v, kind, obj in self.history[: self.read] if kind == "DELETED" and obj["metadata"]["name"] == name
            ]
            held = self.store.objects.get(("ns", name))
            assert max(ends, default=0) > version or (held and version_of(held) >= version)

    @invariant()
    def listeners_know_what_the_copy_holds(self) -> None:
        assert self.told == self.store.objects

    def teardown(self) -> None:
        if self.listing is not None:
            self.list_arrives()
        while self.read < len(self.history):
            self.watch_delivers()
        for answer in reversed(self.answers):
            self.store.put(answer)
        assert self.store.objects == {("ns", name): obj for name, obj in self.truth.items()}


TestInformed = Informed.TestCase
TestInformed.settings = settings(max_examples=200, stateful_step_count=20)
