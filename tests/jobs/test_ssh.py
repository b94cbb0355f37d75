"""Tasks over ssh: to this machine, by a server of the test's own."""

import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from espnet_lite.jobs.array import TASK, Array, Word, words
from espnet_lite.jobs.cluster import load_cluster
from espnet_lite.jobs.launcher import Launcher
from espnet_lite.jobs.processes import Ssh

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
HOSTILE = 'it\'s "$(touch pwned)" `id` & | ; *\n end'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        SSHD is None or shutil.which("ssh-keygen") is None, reason="needs openssh-server"
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Return a cluster of two places on this machine."""
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keygen, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's sshd parts its privileges
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")])
    (folder / "ssh_config").write_text(
        f"Host *\nPort {port}\nIdentityFile {folder}/user\nUserKnownHostsFile {folder}/known\n"
        f"StrictHostKeyChecking no\nUser {getpass.getuser()}\nHostName 127.0.0.1\n"
    )
    (folder / "ssh.yaml").write_text(
        "hosts: [one, two]\npoll_seconds: 0.1\nresources: {cpu: ''}\n"
        f"submit: ssh -F {folder}/ssh_config -o BatchMode=yes {{host}}\n"
    )
    cluster = load_cluster("ssh", folder / "ssh.yaml")
    end = time.monotonic() + 20
    while subprocess.run(
        ["ssh", "-F", folder / "ssh_config", "one", "true"], check=False
    ).returncode:
        assert time.monotonic() < end
        time.sleep(0.2)
    yield cluster
    server.terminate()
    server.wait()


def array(folder: Path, *command, tasks) -> Array:
    return Array("x", words(*command), Word((f"{folder}/log.", "")), folder / "state", tasks)


def test_words_arrive_as_they_are_and_a_host_is_used_again(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = array(tmp_path, "printf", "%s.", HOSTILE, TASK, tasks=range(1, 6))
    assert Launcher(Ssh(cluster), cluster).run(jobs) is None
    for task in jobs.tasks:
        assert f"\n{HOSTILE}.{task}." in jobs.log_of(task).read_text()
    assert not (tmp_path / "pwned").exists()


def test_an_exit_code_and_a_host_that_is_not_there(cluster, tmp_path):
    jobs = array(tmp_path, "bash", "-c", "echo no; exit 7", tasks=[1])
    failure = Launcher(Ssh(cluster), cluster).run(jobs)
    assert failure.exit_code == 7 and failure.message.endswith("\n  no")


def test_a_task_ends_with_its_launcher(cluster, tmp_path):
    """Stopped by a signal: what ran on the other side is gone before the launcher returns."""
    code = f"sleep 600 & echo $! >{tmp_path}/pid; wait"
    jobs = array(tmp_path, "bash", "-c", code, tasks=[1])

    def interrupt():
        end = time.monotonic() + 20
        while not (tmp_path / "pid").exists() and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(os.getpid(), 15)

    thread = threading.Thread(target=interrupt)
    thread.start()
    failure = Launcher(Ssh(cluster), cluster).run(jobs)
    thread.join()
    assert failure.exit_code == 143
    state = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    # A zombie is gone: whoever adopts it may take its time to look.
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
