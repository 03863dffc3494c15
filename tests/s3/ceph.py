"""A real S3 for tests: Ceph's gateway on one monitor and one OSD that keeps objects in memory."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import httpx

from tests.support.prefect_servers import kill

PACKAGES = {
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "monmaptool": "ceph-base",
    "ceph-authtool": "ceph-common",
    "radosgw-admin": "ceph-common",
    "radosgw": "radosgw",
}
START_WITHIN = 60.0  # seconds; a quiet machine needs one or two

# Replication, placement groups' scaling and batching of proposals are for real clusters, as are the
# 5 s until a client that came before the OSD looks again. Nothing here needs ceph-mgr; without
# cephx, though, the gateway of Ceph 16 hangs.
CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{monitor}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = {folder}/keyring
run_dir = {folder}
admin_socket =
log_file =
log_to_stderr = true
log_flush_on_exit = true
mon_cluster_log_to_file = false
crash_dir = {folder}
debug_rocksdb = 1
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
[mon.a]
mon_data = {folder}/mon
[osd.0]
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 8589934592
[client.admin]
objecter_tick_interval = 0.1
rgw_data = {folder}/gateway
rgw_frontends = beast endpoint=127.0.0.1:{gateway}
"""


@dataclass(frozen=True)
class Cluster:
    """Ceph's programs under one configuration, in one folder."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def launch(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "CEPH_CONF": str(self.folder / "ceph.conf"), "CEPH_ARGS": ""}
        with (self.folder / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                [program, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, program: str, *arguments: str) -> None:
        """Runs a program to its end, which must be a success."""
        process = self.launch(program, *arguments)
        try:
            self.wait(lambda: process.poll() is not None, program)
        finally:
            kill(process)
        if process.returncode:
            raise self.failure(f"{program} ended with {process.returncode}")

    def start(self, program: str, *arguments: str) -> None:
        self.daemons[program] = self.launch(program, *arguments)

    def stop(self, program: str) -> None:
        kill(self.daemons.pop(program))

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Looks until it is done, as long as all daemons live."""
        deadline = monotonic() + START_WITHIN
        while not done():
            for name, daemon in self.daemons.items():
                if daemon.poll() is not None:
                    raise self.failure(f"{name} ended with {daemon.returncode}")
            if monotonic() > deadline:
                raise self.failure(f"{what} was not ready within {START_WITHIN:.0f} s")
            sleep(0.01)

    def failure(self, reason: str) -> RuntimeError:
        """What to raise: the reason and the end of every log."""
        logs = [
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            for log in sorted(self.folder.glob("*.log"))
        ]
        return RuntimeError("\n".join([f"Ceph did not start: {reason}", *logs]))


@dataclass(frozen=True)
class Server:
    """A running S3 and its one user; the gateway may go and come back, objects stay."""

    endpoint_url: str
    key: str
    secret: str
    cluster: Cluster = field(repr=False, compare=False)

    @property
    def storage_options(self) -> dict[str, Any]:
        """What s3fs needs to know."""
        return {
            "key": self.key,
            "secret": self.secret,
            "endpoint_url": self.endpoint_url,
            # Ceph 16 knows nothing of the checksums that boto adds on its own since 1.36.
            "config_kwargs": {
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        }

    def stop(self) -> None:
        """Takes S3 away: connections are refused."""
        self.cluster.stop("radosgw")

    def start(self) -> None:
        """Brings it back, at the same address, and returns when it answers."""
        self.cluster.start("radosgw", "-f")
        self.cluster.wait(self.answers, "radosgw")

    def answers(self) -> bool:
        try:
            return httpx.get(self.endpoint_url, timeout=5).is_success
        except httpx.TransportError:
            return False


@contextmanager
def reserved_port() -> Iterator[int]:
    """A loopback port for a program that, like Ceph's, sets SO_REUSEADDR: nobody else gets it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextmanager
def radosgw() -> Iterator[Server]:
    """A server of its own on free ports of the loopback; all of it is gone afterwards."""
    if missing := {package for program, package in PACKAGES.items() if not which(program)}:
        names = " ".join(sorted(missing))
        raise RuntimeError(f"S3 for tests is Ceph's, from Debian: apt-get install {names}")
    with TemporaryDirectory() as name, reserved_port() as monitor, reserved_port() as gateway:
        cluster = Cluster(Path(name))
        server = Server(f"http://127.0.0.1:{gateway}", uuid4().hex, uuid4().hex, cluster)
        try:
            start_storage(cluster, monitor, gateway)
            user = ["--uid=tests", "--display-name=tests", "--max-buckets=0"]
            keys = [f"--access-key={server.key}", f"--secret={server.secret}"]
            cluster.run("radosgw-admin", "user", "create", *user, *keys)
            server.start()
            yield server
        finally:
            for program in reversed([*cluster.daemons]):
                cluster.stop(program)


def start_storage(cluster: Cluster, monitor: int, gateway: int) -> None:
    """A monitor and an OSD, which find each other on their own."""
    folder = cluster.folder
    for part in ("mon", "osd", "gateway"):
        (folder / part).mkdir()
    fsid = str(uuid4())
    (folder / "ceph.conf").write_text(
        CONFIGURATION.format(fsid=fsid, folder=folder, monitor=monitor, gateway=gateway)
    )
    cluster.run("ceph-authtool", "--gen-print-key")
    key = (folder / "ceph-authtool.log").read_text()
    caps = "".join(f'caps {kind} = "allow *"\n' for kind in ("mon", "osd"))
    keyring = [f"[{who}]\nkey = {key}{caps}" for who in ("mon.", "osd.0", "client.admin")]
    (folder / "keyring").write_text("".join(keyring))
    monitors, address = str(folder / "monmap"), f"[v2:127.0.0.1:{monitor}]"
    cluster.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monitors)
    initial = ["--monmap", monitors, "--keyring", str(folder / "keyring")]
    cluster.run("ceph-mon", "--mkfs", "-i", "a", *initial)
    cluster.start("ceph-mon", "-f", "-i", "a")
    cluster.run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", str(uuid4()))
    cluster.start("ceph-osd", "-f", "-i", "0")
