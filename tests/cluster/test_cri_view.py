"""What a container of the runtime sees: its files, its user, its network. As root and with one id."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.cri import api_pb2 as pb
from tests.cluster.cri_fixtures import Runtime


def test_the_view_is_the_containers_own(cri: Runtime, tmp_path: Path) -> None:
    pod = cri.pod()
    script = """ps -e -o pid=,comm= | head -1
        touch /usr/x 2>/dev/null || echo usr read-only
        ls -A /tmp; ls /home 2>/dev/null; touch /tmp/mine
        cat /etc/resolv.conf; stat -f -c %S:%b /dev/shm"""
    lines = cri.output(pod, "sh", "-c", script)
    assert lines[0].split() == ["1", "sh"]
    block, blocks = map(int, lines[-1].split(":"))
    assert block * blocks == 64 << 20
    assert lines[1:-1] == ["usr read-only", "nameserver 10.244.0.1", "search svc.cluster.local", "options ndots:5"]
    assert not Path("/tmp/mine").exists()


def test_mounts_honour_read_only_files_and_depth(cri: Runtime, tmp_path: Path) -> None:
    for name in ("data", "inner", "shm"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    (tmp_path / "termination").touch()
    (tmp_path / "hosts").write_text("10.1.2.3 elsewhere\n")
    mounts = [
        pb.Mount(container_path="/data/inner", host_path=str(tmp_path / "inner")),
        pb.Mount(container_path="/data", host_path=str(tmp_path / "data")),
        pb.Mount(container_path="/readonly", host_path=str(tmp_path / "data"), readonly=True),
        pb.Mount(container_path="/dev/shm", host_path=str(tmp_path / "shm")),
        pb.Mount(container_path="/dev/termination-log", host_path=str(tmp_path / "termination")),
        pb.Mount(container_path="/etc/hosts", host_path=str(tmp_path / "hosts"), readonly=True),
        pb.Mount(container_path="/var/run/secrets/x", host_path=str(tmp_path / "made"), readonly=True),
    ]
    script = """echo 1 >/data/a; echo 2 >/data/inner/b; echo 3 >/dev/shm/c; echo bye >/dev/termination-log
        cat /readonly/a; getent hosts elsewhere; touch /readonly/x || echo refused; ls -d /run/secrets/x"""
    lines = cri.output(cri.pod(), "sh", "-c", script, mounts=mounts)
    assert [line.split()[0] for line in lines if "touch:" not in line] == ["1", "10.1.2.3", "refused", "/run/secrets/x"]
    assert [(tmp_path / name).read_text() for name in ("data/a", "inner/b", "shm/c", "termination")] == [
        "1\n",
        "2\n",
        "3\n",
        "bye\n",
    ]


def test_a_read_only_root_leaves_only_volumes_writable(cri: Runtime, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    lines = cri.output(
        cri.pod(),
        "sh",
        "-c",
        "for d in / /tmp /v /root; do touch $d/x 2>/dev/null && echo $d; done",
        security=pb.LinuxContainerSecurityContext(readonly_rootfs=True),
        mounts=[pb.Mount(container_path="/v", host_path=str(tmp_path / "v"))],
    )
    assert lines == ["/v"]


def test_user_and_capabilities(cri: Runtime) -> None:
    pod = cri.pod()
    script = "id -u; id -g; grep -E 'CapEff|NoNewPrivs' /proc/self/status | cut -f2"
    security = pb.LinuxContainerSecurityContext(
        run_as_user=pb.Int64Value(value=1234),
        run_as_group=pb.Int64Value(value=99),
        supplemental_groups=[99, 777],
        capabilities=pb.Capability(drop_capabilities=["ALL"]),
    )
    assert cri.output(pod, "sh", "-c", script, security=security) == ["1234", "99", "0" * 16, "1"]
    uid, gid, effective, _ = cri.output(pod, "sh", "-c", script)
    assert (uid, gid) == ("0", "0")
    assert int(effective, 16) & (1 | 1 << 21) == 1, "CAP_CHOWN (0) yes, CAP_SYS_ADMIN (21) no"
    groups = cri.output(pod, "id", "-G", security=security)
    assert "777" in groups[0].split() or cri.mode == "user-namespace"


def test_an_environment_works_for_its_user(cri: Runtime) -> None:
    """The image's interpreter is a link into a prefix elsewhere, possibly under a home nobody else may enter."""
    code = (
        "import os, sys, pydantic;"
        "print(os.getuid(), sys.prefix, os.environ['FROM_IMAGE'], os.path.isdir('/opt/r1/tests'))"
    )
    assert cri.output(cri.pod(), "python", "-c", code, image="registry.example:5000/team/r1-operator:dev") == [
        "65532 /opt/venv yes True"
    ]
    # A script of the environment starts its interpreter by an absolute host path.
    assert cri.output(cri.pod(), "pytest", "--version", image="r1-operator:dev")[0].startswith("pytest ")


def test_pods_have_addresses_and_reach_each_other(cri: Runtime) -> None:
    server = cri.pod()
    serve = """import http.server
http.server.ThreadingHTTPServer(("", 80), http.server.SimpleHTTPRequestHandler).serve_forever()"""
    cri.start(server, "python3", "-c", serve, image="r1-operator:dev", working_dir="/opt/r1/tests")
    address = cri.address(server)
    assert address.startswith("10.244.1.")
    fetch = f"""import urllib.request, time, sys
for _ in range(2000):
    try: print(urllib.request.urlopen("http://{address}/").status); sys.exit()
    except OSError: time.sleep(0.05)"""
    other = cri.pod()
    assert cri.address(other) != address
    assert cri.output(other, "python3", "-c", fetch, image="r1-operator:dev") == ["200"]
    local = fetch.replace(address, "127.0.0.1")
    assert cri.output(server, "python3", "-c", local, image="r1-operator:dev") == ["200"], (
        "containers of a pod share its network"
    )


def test_a_pod_on_the_host_network(cri: Runtime) -> None:
    options = pb.NamespaceOption(network=pb.NODE)
    pod = cri.pod(
        linux=pb.LinuxPodSandboxConfig(security_context=pb.LinuxSandboxSecurityContext(namespace_options=options))
    )
    assert cri.address(pod) == "10.244.1.1"
    assert "br0" in " ".join(cri.output(pod, "ls", "/proc/sys/net/ipv4/conf"))


def test_many_pods_at_once(cri: Runtime) -> None:
    requests = []
    for index in range(8):
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=f"p{index}", uid=str(index), namespace="n"), hostname=f"p{index}"
        )
        requests.append(cri.runtime.RunPodSandbox.future(pb.RunPodSandboxRequest(config=config)))
    pods = [request.result().pod_sandbox_id for request in requests]
    cri._pods += pods
    assert len({cri.address(pod) for pod in pods}) == 8
