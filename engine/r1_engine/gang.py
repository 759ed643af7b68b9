"""What node 0 knows of its gang, and what follows from it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from r1_engine.outcome import Cause, Exit
from r1_engine.stages import Member, Stage


@dataclass(frozen=True)
class Gang:
    """`members` by node index, only those that have reported; `seen`: when each was last heard (monotonic seconds)."""

    nodes: int
    members: Mapping[int, Member]
    seen: Mapping[int, float]

    def heard(self, member: Member, now: float) -> Gang:
        return replace(self, members={**self.members, member.index: member}, seen={**self.seen, member.index: now})

    def touched(self, index: int, now: float) -> Gang:
        return replace(self, seen={**self.seen, index: now})

    def excused(self, seconds: float, now: float) -> Gang:
        """Nobody could be heard for `seconds`, because node 0's agent itself did not run."""
        return replace(self, seen={index: min(now, seen + seconds) for index, seen in self.seen.items()})

    def all_servers_started(self) -> bool:
        """Whether every node's server process has been started."""
        return len(self.members) == self.nodes and all(m.stage is not Stage.RAY for m in self.members.values())

    def describe(self, index: int) -> str:
        member = self.members.get(index)
        return f"node {index} ({member.name})" if member else f"node {index}"


def expired_member(gang: Gang, now: float, lease: float) -> tuple[int, float] | None:
    """The member longest silent beyond the lease and its seconds of silence; node 0 needs none with itself."""
    silent = {index: now - seen for index, seen in gang.seen.items() if index != 0 and now - seen > lease}
    if not silent:
        return None
    index = max(silent, key=lambda at: silent[at])
    return index, silent[index]


def lost(gang: Gang, index: int, how: str) -> Cause:
    member = gang.members.get(index)
    message = f"{gang.describe(index)}: {how}. Look at that node and the network between the nodes."
    return Cause(Exit.DIED, "NodeLost", message, member.name if member else "")


def hung(silence: Mapping[int, float], node: str) -> Cause:
    """For DP ranks that stopped to give tokens. With DP attention one frozen rank stops them all."""
    ranks = ", ".join(f"{rank} ({seconds:.0f} s)" for rank, seconds in sorted(silence.items()))
    message = f"No token from DP rank(s) {ranks}. One frozen GPU process or a cut network stops every rank of the gang."
    return Cause(Exit.HUNG, "RankHung", message, node)


def server_hung(label: str, node: str, silence: float) -> Cause:
    """For the HTTP server of node 0, which answers nobody any more, whatever the ranks do."""
    message = f"{label}: the server has not answered for {silence:.0f} s: its process is frozen or blocked."
    return Cause(Exit.HUNG, "ServerHung", message, node)
