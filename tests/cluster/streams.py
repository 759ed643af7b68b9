"""Everything that streams between kubectl and a container, in one pod: exec, attach, cp, port-forward, logs -f."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.cluster.cluster import Cluster
from tests.cluster.workloads import IMAGE, await_state, pod
from tests.waiting import PATIENCE_SECONDS

_LISTEN = 'while read -r line; do echo "heard $line"; [ "$line" = end ] && exit 0; done'
_SERVE = ("python", "-m", "http.server", "8080", "--directory", "/tmp")


def use_streams(cluster: Cluster, namespace: str, scratch: Path) -> None:
    """Asserts that each of them carries what it must, both ways, and ends as it should."""
    server = {"name": "server", "image": IMAGE, "command": list(_SERVE)}
    talker = pod("talker", "sh", "-c", _LISTEN, container={"stdin": True})
    talker["metadata"]["namespace"] = namespace
    talker["spec"]["containers"].append(server)
    cluster.apply(talker)
    await_state(cluster, "pod/talker", "condition=Ready", namespace)

    def kubectl(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [str(cluster.binaries / "kubectl"), "-n", namespace, *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=cluster.environment(), text=True, **{**pipes, **options})

    _exec(kubectl)
    _exec_on_a_terminal(kubectl)
    _copy_and_forward(kubectl, scratch)
    _attach_and_follow(kubectl)


def _exec(kubectl: Callable[..., subprocess.Popen[str]]) -> None:
    script = "cat; echo to-stderr >&2; exit 7"
    ran = kubectl("exec", "-i", "talker", "-c", "server", "--", "sh", "-c", script)
    text = "".join(f"line {number}\n" for number in range(10_000))
    out, err = ran.communicate(text, timeout=PATIENCE_SECONDS)
    assert (out, ran.returncode) == (text, 7)
    assert err.splitlines()[0] == "to-stderr"


def _exec_on_a_terminal(kubectl: Callable[..., subprocess.Popen[str]]) -> None:
    ours, theirs = pty.openpty()
    try:
        ran = kubectl("exec", "-it", "talker", "-c", "server", "--", "sh", stdin=theirs)
        os.write(ours, b"tty; stty size; exit 5\n")
        out, _ = ran.communicate(timeout=PATIENCE_SECONDS)
    finally:
        os.close(ours)
        os.close(theirs)
    assert ran.returncode == 5
    assert "/dev/pts/" in out


def _copy_and_forward(kubectl: Callable[..., subprocess.Popen[str]], scratch: Path) -> None:
    """A file copied in comes out again, by cp and through a forwarded port."""
    content = os.urandom(1 << 20)
    (scratch / "sent").write_bytes(content)
    for source, target in ((str(scratch / "sent"), "talker:/tmp/there"), ("talker:/tmp/there", str(scratch / "back"))):
        copied = kubectl("cp", "-c", "server", source, target)
        _, err = copied.communicate(timeout=PATIENCE_SECONDS)
        assert copied.returncode == 0, err
    assert (scratch / "back").read_bytes() == content
    with kubectl("port-forward", "pod/talker", ":8080") as forward:
        try:
            assert forward.stdout is not None
            # Forwarding from 127.0.0.1:34567 -> 8080
            address = forward.stdout.readline().split()[2]
            for _ in range(2):
                with urlopen(f"http://{address}/there", timeout=PATIENCE_SECONDS) as answer:
                    assert answer.read() == content
        finally:
            forward.terminate()


def _attach_and_follow(kubectl: Callable[..., subprocess.Popen[str]]) -> None:
    """What is typed into the container's input is heard there, and whoever follows its log reads on until its end."""
    follower = kubectl("logs", "-f", "talker", "-c", "main")
    attached = kubectl("attach", "-i", "talker", "-c", "main")
    out, err = attached.communicate("one\nend\n", timeout=PATIENCE_SECONDS)
    assert (out, attached.returncode) == ("heard one\nheard end\n", 0), err
    followed, _ = follower.communicate(timeout=PATIENCE_SECONDS)
    assert (followed, follower.returncode) == ("heard one\nheard end\n", 0)
