"""Runs one candidate in a private Linux sandbox; `namespace.py` starts it.

It is a script, not a module of the program: the host's interpreter runs it with
the standard library alone, as pid 1 of new user, mount, pid, net, ipc and uts
namespaces, so that its end is the end of everything that the candidate started.
Python rather than a shell script, because each mount(8) costs milliseconds and
mount(2) does not.

    sandbox.py STATUS_FD SCRATCH REPO WORKDIR MODE [HOST_DIR...]

SCRATCH holds `eval.sh`, an empty `root/` and, if there is a patch, `patch.diff`
and `apply.sh`. REPO appears at WORKDIR, through an overlay or as a copy (MODE).
Each HOST_DIR is shown read-only where it is; beside the system's own programs
nothing else of the host is visible. Setup and apply write to stderr, the tests to
stdout; STATUS_FD gets a line when the sandbox is `ready` and one when the patch
was tried (`apply <exit code>`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import resource
import shutil
import signal
import socket
import struct
import sys
from pathlib import Path

SIZE = "size=4g,nr_inodes=1m"
PROCESSES = 4096
FILE_BYTES = 4 << 30

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC = 32, 4096, 16384
OPTION_FLAGS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
}
MNT_DETACH = 2
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What a Docker container keeps, so that tests meet the same root: chown,
# dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service,
# net_raw, sys_chroot, mknod, audit_write, setfcap.
KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}

SYSTEM_DIRS = [Path("/usr"), *map(Path("/").joinpath, ("bin", "sbin", "lib", "lib64"))]
ETC_DIRS = [Path("/etc/alternatives"), Path("/etc/ssl/certs")]
ETC_FILES = [
    Path("/etc", name)
    for name in ("ld.so.cache", "localtime", "mime.types", "protocols", "services")
]
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
USERS = """\
root:x:0:0:root:/root:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raises the `OSError` of a failed call of the C library."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(
    source: str | Path, target: str | Path, kind: str, flags: int = 0, data: str = ""
) -> None:
    """Mounts `source` at `target`; an empty `kind` is for binds and their flags."""
    call = libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode(),
        ctypes.c_ulong(flags),
        data.encode(),
    )
    check(call, f"mount {kind or 'bind'} on {target}")


def show(path: Path, root: Path) -> None:
    """Binds a host directory, with every mount below it, read-only into `root`."""
    target = Path(f"{root}{path}")
    target.mkdir(parents=True, exist_ok=True)
    mount(path, target, "", MS_BIND | MS_REC)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        at = Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4]))
        if at.is_relative_to(target):
            # A user namespace may not drop the flags that a mount already has.
            kept = sum(OPTION_FLAGS.get(option, 0) for option in fields[5].split(","))
            flags = kept | MS_RDONLY | MS_NOSUID
            mount("", at, "", MS_REMOUNT | MS_BIND | flags)


def build_root(root: Path, host_dirs: list[Path]) -> None:
    """Fills `root` with the system's programs, `/dev` and a small `/etc`."""
    mount("root", root, "tmpfs", 0, f"{SIZE},mode=755")
    for name in ("dev/pts", "etc", "proc", "root", "run"):
        (root / name).mkdir(parents=True)
    for name in ("dev/shm", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True)
        (root / name).chmod(0o1777)
    for path in SYSTEM_DIRS:
        if path.is_symlink():
            Path(f"{root}{path}").symlink_to(path.readlink())
        elif path.is_dir():
            show(path, root)
    for path in (*ETC_DIRS, *host_dirs):
        if path.is_dir():
            show(path, root)
    for path in ETC_FILES:
        if path.is_file():
            shutil.copyfile(path, f"{root}{path}")
    (root / "etc/passwd").write_text(USERS)
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost sandbox\n::1 localhost\n")
    build_dev(root / "dev")


def build_dev(dev: Path) -> None:
    """Fills `/dev` with the devices that a container has."""
    for name in DEVICES:
        (dev / name).touch()
        mount(f"/dev/{name}", dev / name, "", MS_BIND)
    mount("pts", dev / "pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{fd}")


def show_repository(repo: str, root: Path, workdir: str, mode: str) -> None:
    """Puts a writable view of `repo` at `workdir` of the new root."""
    target = Path(f"{root}{workdir}")
    if mode == "copy":
        shutil.copytree(repo, target, symlinks=True, dirs_exist_ok=True)
        return
    target.mkdir(parents=True, exist_ok=True)
    lower, layers = root / ".lower", root / ".layers"
    lower.mkdir()
    layers.mkdir()
    mount(repo, lower, "", MS_BIND)
    mount("layers", layers, "tmpfs", 0, SIZE)
    (layers / "upper").mkdir()
    (layers / "work").mkdir()
    os.chdir(root)  # for relative paths: absolute ones may hold commas and colons
    options = "lowerdir=.lower,upperdir=.layers/upper,workdir=.layers/work,userxattr"
    mount("overlay", target, "overlay", 0, options)
    for path in (lower, layers):
        check(libc.umount2(os.fsencode(path), MNT_DETACH), f"umount {path}")
        path.rmdir()


def mount_proc(proc: Path) -> None:
    """Mounts `/proc` read-only: to the host's root its `/proc/sys` would be open.

    Before that it sets what older kernels may refuse and what we can do without:
    fewer processes, no namespaces within namespaces, and when memory runs out the
    sandbox goes first, not the trainer.
    """
    safe = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", proc, "proc", safe)
    for name, value in (
        ("sys/kernel/pid_max", PROCESSES),
        ("sys/user/max_user_namespaces", 0),
        ("self/oom_score_adj", 500),
    ):
        with contextlib.suppress(OSError):
            (proc / name).write_text(str(value))
    mount("", proc, "", MS_REMOUNT | MS_BIND | MS_RDONLY | safe)


def enter(root: Path) -> None:
    """Makes `root` the root and lets go of the host's."""
    os.chdir(root)
    # With both names equal the old root lies on top of the new one: pivot_root(2).
    check(libc.pivot_root(b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount of the host")
    os.chdir("/")


def start_network() -> None:
    """Brings up the loopback, the only interface there is."""
    socket.sethostname("sandbox")
    with socket.socket() as sock:
        request = struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING)
        fcntl.ioctl(sock, SIOCSIFFLAGS, request)


def drop_privileges() -> None:
    """Limits what root inside may do; the next `exec` makes it effective."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in set(range(last + 1)) - KEPT_CAPABILITIES:
        check(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))


# pid 1 of the tests: tries the patch, reports, and becomes the eval script.
RUN = """
if [ -e /tmp/apply.sh ]; then
  code=0
  /bin/sh /tmp/apply.sh >&2 || code=$?
  rm /tmp/apply.sh
  echo "apply $code" >&"$1"
  [ "$code" = 0 ] || exit 0
fi
status=$1
exec {status}>&-
exec /bin/bash /eval.sh 2>&1
"""


def main(
    status: str, scratch: str, repo: str, workdir: str, mode: str, *dirs: str
) -> None:
    """Builds the sandbox and becomes the candidate's run."""
    os.umask(0o022)
    inputs, root = Path(scratch), Path(scratch, "root")
    build_root(root, [Path(path) for path in dirs])
    show_repository(repo, root, workdir, mode)
    shutil.copyfile(inputs / "eval.sh", root / "eval.sh")
    for name in ("patch.diff", "apply.sh"):
        if (inputs / name).exists():
            shutil.copyfile(inputs / name, root / "tmp" / name)
    mount_proc(root / "proc")
    enter(root)
    start_network()
    drop_privileges()
    os.chdir(workdir)
    environment = {
        "HOME": "/root",
        "HOSTNAME": "sandbox",
        "LANG": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
    }
    # What Python, nohup or a background job ignores would stay ignored after exec.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    os.set_inheritable(int(status), True)
    # It fails if the trainer was killed before it could take this process along.
    os.write(int(status), b"ready\n")
    bash = ["bash", "-c", RUN, "sandbox", status]
    os.execve("/bin/bash", bash, environment)  # noqa: S606 - bash, with our script


if __name__ == "__main__":
    main(*sys.argv[1:])
