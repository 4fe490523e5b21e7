"""Limits on what hostile tests can read, change, keep and consume in a sandbox."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sandboxes import (
    LIMITS,
    SandboxRun,
    as_nobody,
    require_sandbox,
    run,
    sandbox_processes,
)

from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.namespace.cgroup import (
    PREFIX,
    GraderCgroups,
    cgroup_parents,
    reap_cgroups,
)
from swebench_trainer.grading.namespace.grader import host_root
from swebench_trainer.grading.namespace.launch import Launcher
from swebench_trainer.grading.namespace.sandbox_init import DEVICES

pytestmark = pytest.mark.usefixtures("_sandbox")


@pytest.fixture(scope="module")
def _sandbox() -> None:
    require_sandbox()


def python(code: str) -> str:
    return f"python3 - <<'END'\n{code}\nEND\n"


def needs_cgroups() -> None:
    if not cgroup_parents():
        pytest.skip("this user may make no cgroups")


@pytest.mark.parametrize(
    "path",
    [
        "/home",
        "/root/.ssh",
        "/root/.cache",
        "/etc/shadow",
        "/etc/ssh",
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/var/lib",
        "/boot",
        "/opt",
        "/srv",
        "/mnt",
        "/dev/sda",
        "/dev/mem",
        "/dev/kmsg",
        "/sys/kernel",
        "/sys/fs/cgroup",
        "/proc/1/root",
        "/proc/1/cwd",
        "/proc/1/fd/0",
        str(Path(__file__)),
    ],
)
def test_files_of_the_host_are_hidden(path: str, tmp_path: Path) -> None:
    ran = run(f"stat -L {path}; echo code $?", tmp_path)
    assert "code 1\n" in ran.output, ran


def test_the_trainers_files_and_environment_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "secret")
    (tmp_path / "secret").write_text("hidden treasure")
    ran = run(
        f"cat {tmp_path}/secret; ls -A /tmp /var/tmp /root; env; "
        "cat /proc/*/environ /proc/*/cmdline /proc/mounts | tr '\\0' '\\n'",
        tmp_path,
    )
    assert "No such file" in ran.output
    assert "treasure" not in ran.output
    assert "hf_secret" not in ran.output
    assert f"{tmp_path}" not in ran.output.partition("No such file")[2]


@pytest.mark.parametrize(
    "name", ["mem", "environ", "maps", "fd/0", "fd/3", "fdinfo", "root/etc", "auxv"]
)
def test_pid_1_cannot_be_inspected(name: str, tmp_path: Path) -> None:
    ran = run(
        python(
            "import os\n"
            f"path = '/proc/1/{name}'\n"
            "try:\n"
            "    print('open', os.listdir(path) if path.endswith(('info', 'etc'))"
            " else open(path, 'rb').read(1))\n"
            "except OSError as error: print('refused', error.strerror)"
        ),
        tmp_path,
    )
    assert "refused Permission denied" in ran.output, ran


def test_pid_1_cannot_be_traced_or_signalled(tmp_path: Path) -> None:
    ran = run(
        python(
            "import ctypes, os, signal\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE\n"
            "    print('trace', libc.ptrace(request, 1, 0, 0),"
            " os.strerror(ctypes.get_errno()))\n"
            "for number in signal.valid_signals():\n"
            "    os.kill(1, number)\n"
            "print('still here')"
        ),
        tmp_path,
    )
    assert ran.output.count("trace -1 Operation not permitted") == 2, ran
    assert "still here" in ran.output
    assert ran.ended.code == 0


def test_tests_inherit_only_their_streams(tmp_path: Path) -> None:
    ran = run("ls -l /proc/$$/fd; readlink /proc/$$/fd/0", tmp_path)
    links = [line.split() for line in ran.output.splitlines() if " -> " in line]
    names = {words[words.index("->") - 1] for words in links}
    # bash reads its script from 255.
    assert names <= {"0", "1", "2", "255"}, ran
    assert ran.output.endswith("/dev/null\n")


@pytest.mark.parametrize(
    "command",
    [
        "echo x > /proc/sys/kernel/core_pattern",
        "echo x > /proc/sys/kernel/hostname",
        "echo b > /proc/sysrq-trigger",
        "echo 0 > /proc/self/oom_score_adj",
        "touch /usr/new",
        "touch /bin/new",
        f"touch {sys.prefix}/new",
        "mount -t tmpfs none /mnt",
        "mount -o remount,rw /usr",
        "mount -o remount,rw /proc",
        "umount /proc",
        "umount -l /usr",
        "unshare --user --map-root-user true",
        "unshare --mount true",
        "unshare --net true",
        "nsenter --target 1 --mount true",
        "mknod /tmp/disk b 8 0 && cat /tmp/disk",
        "date --set 2001-01-01",
        "hostname other",
        "swapoff -a && false",
        "dmesg",
        "cat /proc/kcore | head -c1 | grep -q . ",
        "modprobe loop",
        "chroot /proc/1/root true",
        "ip link add dummy0 type dummy",
        "echo 1 > /proc/1/oom_score_adj",
    ],
)
def test_the_host_cannot_be_changed(command: str, tmp_path: Path) -> None:
    ran = run(f"( {command} ) && echo do''ne", tmp_path)
    assert "done\n" not in ran.output, ran


def test_devices_of_the_host_keep_owner_and_mode(tmp_path: Path) -> None:
    def states() -> dict[str, tuple[int, int, int]]:
        found = {name: Path("/dev", name).stat() for name in DEVICES}
        return {n: (s.st_uid, s.st_gid, s.st_mode) for n, s in found.items()}

    before = states()
    ran = run(
        "for name in /dev/* /proc/kcore /proc/keys /proc/timer_list; do\n"
        "chown 65534:65534 $name; chmod 600 $name; touch -d @0 $name; done\n"
        "echo kept > /dev/null && head -c 2 /dev/zero | wc -c",
        tmp_path,
    )
    try:
        assert states() == before
    finally:
        if states() != before:  # do not leave the machine damaged
            for name, (user, group, mode) in before.items():
                os.chown(f"/dev/{name}", user, group)
                Path("/dev", name).chmod(stat.S_IMODE(mode))
    assert ran.output.split()[-1] == "2"


def test_the_repository_on_the_host_stays_unchanged(tmp_path: Path) -> None:
    ran = run("echo other > file; rm -rf /testbed/*; touch new; ls", tmp_path)
    assert "new\n" in ran.output
    repository = tmp_path / "repository"
    assert [path.name for path in repository.iterdir()] == ["file"]
    assert (repository / "file").read_text() == "of the repository\n"


def test_setuid_programs_gain_no_privileges(tmp_path: Path) -> None:
    ran = run(
        "grep -E 'NoNewPrivs|CapBnd' /proc/self/status; "
        "cp /usr/bin/id /tmp/id; chmod 6755 /tmp/id; "
        "grep -c nosuid /proc/self/mounts",
        tmp_path,
    )
    assert "NoNewPrivs:\t1" in ran.output
    # Exactly the capabilities of a Docker container.
    assert "CapBnd:\t00000000a80425fb" in ran.output


def test_the_loopback_is_the_only_network(tmp_path: Path) -> None:
    ran = run("tail -n +3 /proc/net/dev; tail -n +2 /proc/net/unix", tmp_path)
    (interface,) = ran.output.splitlines()
    assert interface.strip().startswith("lo:")


def test_evidence_names_what_changed_outside_the_repository(tmp_path: Path) -> None:
    ran = run(
        "touch inside /tmp/new /var/tmp/dev; mkdir -p /root/deep/er; "
        "ln -s / /root/deep/er/link; echo x >> /etc/hosts; rm /etc/resolv.conf",
        tmp_path,
        inspect=True,
    )
    assert ran.evidence is not None
    assert ran.evidence.changed == (
        "/etc/hosts",
        "/etc/resolv.conf",
        "/root/deep/er/link",
        "/tmp/new",
        "/var/tmp/dev",
    )
    assert ran.evidence.script_intact


@pytest.mark.parametrize(
    "command",
    [
        "echo '#' >> /eval.sh",
        "cp /eval.sh /tmp/copy; echo x > /eval.sh; cat /tmp/copy > /eval.sh",
        "cp -p /eval.sh /tmp/copy; echo x > /eval.sh; mv /tmp/copy /eval.sh",
        "rm /eval.sh",
        "rm /eval.sh; mkfifo /eval.sh",
        "rm /eval.sh; ln -s /dev/zero /eval.sh",
        "touch -d 2001-01-01 /eval.sh",
    ],
)
def test_evidence_shows_a_changed_script(command: str, tmp_path: Path) -> None:
    ran = run(command, tmp_path, inspect=True)
    assert ran.evidence is not None
    assert not ran.evidence.script_intact


def test_evidence_is_limited_in_size(tmp_path: Path) -> None:
    ran = run("cd /tmp && seq 60000 | xargs touch", tmp_path, inspect=True)
    assert ran.evidence is not None
    assert len(ran.evidence.changed) == 10_000


def test_evidence_survives_endless_paths_and_odd_names(tmp_path: Path) -> None:
    ran = run(
        python(
            "import os\n"
            "os.chdir('/tmp')\n"
            "open(b'\\xff\\n', 'w').close()\n"
            "for _ in range(60):\n"
            "    os.mkdir('d' * 200); os.chdir('d' * 200)\n"
            "open('end', 'w').close()"
        ),
        tmp_path,
        inspect=True,
    )
    assert ran.evidence is not None
    assert "/tmp/\ufffd\n" in ran.evidence.changed
    assert len(ran.evidence.changed) == 2


def test_tests_cannot_kill_processes_outside(tmp_path: Path) -> None:
    ran = run("echo before; kill -9 -1; kill -9 0; kill -9 $$", tmp_path)
    assert ran.output.startswith("before\n")
    assert ran.ended.code == 137
    assert not (ran.ended.oom or ran.ended.timed_out)


def test_signals_to_a_process_group_stay_inside(tmp_path: Path) -> None:
    ran = run("trap '' TERM; kill -TERM 0; ps -e >/dev/null; echo alive", tmp_path)
    assert ran.output.endswith("alive\n")


@pytest.mark.parametrize(
    "script",
    [
        "trap '' TERM INT HUP; while :; do sleep 1; done",
        "exec >&- 2>&-; sleep 600",
        "kill -STOP $$",
        "(setsid sleep 600 &); sleep 600",
    ],
)
def test_the_deadline_ends_resisting_processes(script: str, tmp_path: Path) -> None:
    begin = time.monotonic()
    ran = run(script, tmp_path, timeout=1)
    assert ran.ended.timed_out
    assert ran.ended.code is None
    assert time.monotonic() - begin < 1 + 5


def test_a_background_process_neither_survives_nor_delays_the_run(
    tmp_path: Path,
) -> None:
    mark = f"86400.{os.getpid()}"
    begin = time.monotonic()
    ran = run(
        f"setsid nohup sleep {mark} & (trap '' TERM HUP; sleep {mark}) & echo done",
        tmp_path,
        inspect=True,
    )
    assert ran.ended.code == 0
    assert ran.output.endswith("done\n")
    assert time.monotonic() - begin < 10
    assert sandbox_processes(mark) == []


def test_background_processes_of_the_apply_script_end_before_the_tests(
    tmp_path: Path,
) -> None:
    (tmp_path / "repository").mkdir()
    files = {
        "tmp/apply.sh": b"(while :; do echo late >> /tmp/daemon; done) & echo applied",
        "eval.sh": b"ls /proc | grep -c '^[0-9]'",
    }
    root = host_root(tmp_path / "repository")
    with (
        Launcher() as launcher,
        launcher.launch(root, "/testbed", files, LIMITS, None) as sandbox,
    ):
        with CappedLog(tmp_path / "apply") as log:
            assert sandbox.apply(log).code == 0
        with CappedLog(tmp_path / "test") as log:
            assert sandbox.test(log, 10).code == 0
    assert (tmp_path / "apply").read_text() == "applied\n"
    assert int((tmp_path / "test").read_text()) <= 4  # pid 1, bash, ls, grep


def test_a_fork_bomb_is_contained(tmp_path: Path) -> None:
    begin = time.monotonic()
    ran = run(
        "bomb() { bomb | bomb & }; bomb; sleep 0.3; echo over", tmp_path, timeout=1
    )
    assert time.monotonic() - begin < 1 + 5
    assert "Resource temporarily unavailable" in ran.output or ran.ended.timed_out


def test_processes_are_limited_without_cgroups(tmp_path: Path) -> None:
    ran = run(
        python(
            "import os, time\n"
            "count = 0\n"
            "try:\n"
            "    while os.fork(): count += 1\n"
            "    time.sleep(60)\n"
            "except OSError: print('stopped at', count)"
        ),
        tmp_path,
        group=False,
        pids=400,
    )
    assert 300 < int(ran.output.split("stopped at ")[1].split()[0]) <= 400, ran


HOG = python(
    "x = bytearray(300 << 20); x[::4096] = b'x' * len(x[::4096]); print('big')"
)


def test_exceeding_the_memory_limit_is_oom(tmp_path: Path) -> None:
    needs_cgroups()
    ran = run(HOG, tmp_path, memory=64 << 20)
    assert ran.ended.oom
    assert "big\n" not in ran.output


def test_files_count_toward_the_memory_limit(tmp_path: Path) -> None:
    needs_cgroups()
    ran = run(
        "head -c 200M /dev/zero > /tmp/big; echo code $?", tmp_path, memory=64 << 20
    )
    assert ran.ended.oom


def test_staying_below_the_memory_limit_is_not_oom(tmp_path: Path) -> None:
    ran = run(HOG, tmp_path, memory=600 << 20)
    assert not ran.ended.oom
    assert ran.output == "big\n"


def test_the_memory_of_a_process_is_limited_without_cgroups(tmp_path: Path) -> None:
    ran = run(HOG, tmp_path, group=False, memory=200 << 20)
    assert "MemoryError" in ran.output
    assert ran.ended.oom is None, "only the output tells"


def test_the_disk_is_limited(tmp_path: Path) -> None:
    ran = run(
        "head -c 20M /dev/zero > /tmp/a; head -c 20M /dev/zero > b; "
        "head -c 20M /dev/zero > /dev/shm/c",
        tmp_path,
        disk=32 << 20,
    )
    assert ran.output.count("No space left on device") == 2


def test_endless_output_ends_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "swebench_trainer.grading.capped_log.CappedLog.__init__.__kwdefaults__",
        {"head": 1 << 20, "tail": 1 << 20},
    )
    begin = time.monotonic()
    ran = run("yes & yes >&2 & wait", tmp_path, timeout=1)
    assert ran.ended.timed_out
    assert time.monotonic() - begin < 1 + 5
    assert len(ran.output) < 4 << 20


def cgroups_of_sandboxes() -> set[Path]:
    return {f for parent in cgroup_parents() for f in parent.glob(f"{PREFIX}*")}


def test_no_cgroup_is_left(tmp_path: Path) -> None:
    needs_cgroups()
    before = cgroups_of_sandboxes()
    ran: SandboxRun = run("(setsid sleep 60 &); true", tmp_path)
    assert ran.ended.code == 0
    assert cgroups_of_sandboxes() <= before


def test_the_cgroups_of_a_killed_grader_are_reaped() -> None:
    needs_cgroups()
    code = (
        "import os, signal, subprocess, sys\n"
        "from swebench_trainer.grading.namespace.cgroup import GraderCgroups, cgroup_parents\n"
        "cgroups = GraderCgroups(cgroup_parents())\n"
        "with cgroups.group(1 << 28, 100) as group:\n"
        "    script = 'for f; do echo $$ > $f; done; exec sleep 60'\n"
        "    subprocess.Popen(['sh', '-c', script, 'sh', *group.entrances],"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "    inside = [folder / 'cgroup.procs' for folder in group.folders]\n"
        "    while not all(path.read_text() for path in inside): pass\n"
        "    print(*group.folders, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    left = [Path(path) for path in done.stdout.split()]
    assert left
    assert all(folder.is_dir() for folder in left)
    living = GraderCgroups(cgroup_parents())
    try:
        reap_cgroups()
        assert not any(folder.parent.exists() for folder in left)
        with living.group(1 << 28, 100) as group:
            assert all(folder.is_dir() for folder in group.folders)
    finally:
        living.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_can_run_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    with as_nobody(monkeypatch) as folder, Launcher() as launcher:
        ran = run(
            "id -u; touch new /root/new; rm file; git --version; "
            "cat /proc/self/uid_map",
            folder,
            group=False,
            inspect=True,
            launcher=launcher,
        )
        assert ran.output.startswith("0\ngit version"), ran
        assert ran.output.split()[-3:] == ["0", "65534", "1"]
        assert ran.evidence is not None
        assert ran.evidence.changed == ("/root/new",)
        assert (folder / "repository" / "file").exists()


def test_ignored_signals_are_not_inherited(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        ran = run("grep -E 'Sig(Ign|Blk)' /proc/self/status", tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ran.output.count("0000000000000000") == 2, ran


def test_the_forking_process_is_restarted(tmp_path: Path) -> None:
    with Launcher() as launcher:
        assert run("true", tmp_path, launcher=launcher).ended.code == 0
        assert launcher._process is not None
        launcher._process.kill()
        launcher._process.wait()
        assert run("true", tmp_path, launcher=launcher).ended.code == 0
