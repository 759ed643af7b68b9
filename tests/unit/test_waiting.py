"""What the tests themselves stand on: a socket that answers, a port that stays free."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.ports import BLOCK, free_port
from tests.waiting import listens

CHECKOUT = Path(__file__).parents[2]


def test_a_socket_listens_when_somebody_does_and_not_when_its_file_is_there(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    for path in (tmp_path / "short.sock", deep / "longer-than-an-address.sock"):
        assert not listens(path)
        with socket.socket(socket.AF_UNIX) as server:
            (link := tmp_path / "way").symlink_to(path.parent)
            server.bind(str(link / path.name))
            link.unlink()
            assert path.exists()
            assert not listens(path), "bound, but nobody listens"
            server.listen()
            assert listens(path)
        assert path.exists()
        assert not listens(path), "its server is gone"


def test_ports_are_free_and_no_other_process_is_given_them() -> None:
    ours = [free_port() for _ in range(BLOCK)]
    assert len(set(ours)) == BLOCK
    script = f"from tests.ports import free_port; print(*(free_port() for _ in range({BLOCK})))"
    theirs = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(map(int, theirs)).isdisjoint(ours)
    with socket.socket() as server:
        server.bind(("127.0.1.1", ours[0]))
        server.listen()
        again = [free_port() for _ in range(BLOCK)]
    assert ours[0] not in again
