"""Sandbox side of the `namespace` grader: forks sandboxes, and is pid 1 in each.

`launch.py` starts this script once per grader. It is a script, not a module of the
package: it uses only the standard library, and runs without the trainer's environment.
It is Python, not shell, because each mount(8) takes milliseconds and mount(2) does not.
One process forks all sandboxes, because starting Python takes longer than the rest.

For each sandbox, the host sends five file descriptors: the marshalled settings
(`Launcher.launch`), the control socket, the write ends of two pipes for the output of
apply.sh and eval.sh, and a file for error messages. The forked process enters its
cgroups, creates new user, mount, pid, net, ipc, uts and cgroup namespaces, and waits.
Its child is pid 1 of the sandbox: it builds the root filesystem, detaches the host's,
writes `ready`, and then executes one-byte commands from the control socket: `a` applies
the patch, `t` runs the tests, `i` (followed by paths) reports what they have changed. When the socket is
closed, pid 1 ends, and the kernel kills everything else in the sandbox.

Processes of the candidate run below pid 1, with the capabilities of a Docker container's
root. Pid 1 keeps more. Other processes cannot read its memory or files, and the kernel
does not deliver their signals to it.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import hashlib
import marshal
import os
import resource
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

BASE = Path("/sys")
"""Where the sandbox is built: a directory that always exists and is not mounted."""

MAX_FILES = 50_000
"""Maximum number of files to inspect after the tests; an honest run writes fewer."""
MAX_PATHS = 10_000
"""Maximum number of changed files to report; an honest run changes a handful."""

MAX_TEST_BYTES = 16 << 20
"""Larger test files are compared by size only."""
SETTLE_TRIES, SETTLE_PAUSE = 5, 0.1
"""How often, and after how many seconds, to look again for processes that are ending."""

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1 << 5, 1 << 12, 1 << 14, 1 << 18
OPTION_FLAGS = {
    b"ro": MS_RDONLY,
    b"nosuid": MS_NOSUID,
    b"nodev": MS_NODEV,
    b"noexec": MS_NOEXEC,
    b"noatime": 1 << 10,
    b"nodiratime": 1 << 11,
    b"relatime": 1 << 21,
}
MNT_DETACH = 2
NEW_NETWORK = 0x40000000
NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x08000000 | 0x04000000
NEW_CGROUP = 0x02000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41
JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}
"""Number of keyctl(2), whose operation 1 it is."""

# Capabilities of root in a Docker container: chown,
# dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service,
# net_raw, sys_chroot, mknod, audit_write, setfcap.
KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}

PROGRAM_DIRS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32")
ETC_DIRS = ("/etc/alternatives", "/etc/ssl/certs")
COMMANDS = {"a": ["/bin/sh", "/tmp/apply.sh"], "t": ["/bin/bash", "/eval.sh"]}  # noqa: S108 - of a sandbox
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
SECRET_PROC = ("kcore", "keys", "timer_list")

Listing = dict[str, tuple[int, ...]]
"""Identity of each file, by path."""

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise the `OSError` of a failed call of the C library."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(
    source: str | Path, target: str | Path, kind: str, flags: int = 0, data: str = ""
) -> None:
    """Mount `source` at `target`; an empty `kind` is for bind mounts and their flags."""
    call = libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode(),
        ctypes.c_ulong(flags),
        os.fsencode(data),
    )
    check(call, f"mount {kind or 'bind'} on {target}")


def write(path: Path, content: bytes) -> None:
    """Write a new file, replacing an existing file or link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(content)


def fork(run: Callable[[], object]) -> int:
    """Run a function in a child process, which ends with it."""
    child = os.fork()
    if child == 0:
        try:
            run()
            os._exit(0)
        except BaseException as error:  # the child ends here on any error
            os.write(2, f"{error}\n".encode(errors="replace"))
        finally:
            os._exit(1)
    return child


# Outside the sandbox.


def main() -> None:
    """Fork a sandbox per request, until the host closes its socket or dies."""
    host = socket.socket(fileno=int(sys.argv[1]))
    trainer = os.getppid()
    os.chdir("/")
    os.umask(0o022)
    with suppress(OSError):  # out of memory, kill sandboxes before the trainer
        Path("/proc/self/oom_score_adj").write_text("500")
    gc.freeze()
    while os.getppid() == trainer:
        if select.select([host], [], [], 1)[0]:
            word, files, _, _ = socket.recv_fds(host, 1, 5)
            if not word:
                return
            answer(host, files)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def answer(host: socket.socket, files: list[int]) -> None:
    """Fork a sandbox, and send a handle of its process or an error message."""
    for file in files:  # received files are inheritable by default
        os.set_inheritable(file, False)
    try:
        handle = os.pidfd_open(fork(lambda: start(host, *files)))
    except OSError as error:
        host.send(str(error).encode())
    else:
        socket.send_fds(host, [b"p"], [handle])
        os.close(handle)
    for file in files:
        os.close(file)


def start(host: socket.socket, file: int, *ends: int) -> None:
    """Create the namespaces of a sandbox, start its pid 1, and wait for its end."""
    host.close()
    control, apply_output, test_output, errors = ends
    os.dup2(errors, 2)
    os.setsid()
    # The kernel ends this process with its parent, and pid 1 with this process.
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    # Signals that the trainer ignores would stay ignored.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    with open(file, "rb") as settings_file:
        settings: dict[str, Any] = marshal.load(settings_file)  # noqa: S302 - sent by the host
    for path in settings["cgroups"]:
        Path(path).write_text("0")
    make_namespaces(NEW_NAMESPACES | (0 if settings["network"] else NEW_NETWORK))
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    outputs = {"a": apply_output, "t": test_output}
    supervisor = fork(lambda: supervise(settings, control, outputs))
    for end in (control, apply_output, test_output):
        os.close(end)
    os.waitpid(supervisor, 0)


def make_namespaces(flags: int) -> None:
    """Move this process into new namespaces; the pid namespace is for its children."""
    us = os.getpid()
    reader, writer = os.pipe()

    def map_when_ready() -> None:
        os.close(writer)
        os.read(reader, 1)
        map_users(us)

    # Several users can be mapped only from outside the namespace.
    helper = fork(map_when_ready)
    check(libc.unshare(flags | NEW_CGROUP), "unshare")
    os.close(writer)
    os.close(reader)
    if os.waitpid(helper, 0)[1] != 0:
        raise OSError("the users of the sandbox cannot be mapped")


def map_users(process: int) -> None:
    """Map the users that this process may become: root all, others only themselves."""
    for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
        known = Path(f"/proc/self/{kind}_map").read_text().splitlines()
        ranges = [line.split() for line in known]
        everybody = "".join(f"{first} {first} {count}\n" for first, _, count in ranges)
        target = Path(f"/proc/{process}/{kind}_map")
        try:
            target.write_text(everybody)
        except PermissionError:
            Path(f"/proc/{process}/setgroups").write_text("deny")
            target.write_text(f"0 {own} 1")


# Pid 1.


def supervise(settings: dict[str, Any], control: int, outputs: dict[str, int]) -> None:
    """Build the sandbox and serve the host until it closes the socket."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")
    libc.syscall(JOIN_SESSION_KEYRING.get(os.uname().machine, -1), 1, None)
    writable = build(settings)
    for name, content in (settings["etc"] | settings["files"]).items():
        write(Path("/", name), content)
    workdir: str = settings["workdir"]
    os.chdir(workdir)
    for shell in ("/bin/sh", "/bin/bash"):
        if not os.access(shell, os.X_OK):
            raise OSError(f"{shell} is missing")
    before, script = listing(writable, workdir), state_of("/eval.sh")
    # Fails if the trainer was killed before prctl() tied this process to it.
    os.write(control, b"ready\n")
    running: list[str] = []
    while word := os.read(control, 1).decode():
        if word == "i":
            intact = script == state_of("/eval.sh")
            after = listing(writable, workdir)
            paths = {p for p in before.keys() | after if before.get(p) != after.get(p)}
            paths -= {f"/{name}" for name in settings["files"]}
            tests = [test_file(path) for path in asked_paths(control)]
            digests, times = [t[0] for t in tests], [str(t[1]) for t in tests]
            fields = ["intact" if intact else "changed", str(len(running)), *running]
            fields += [*digests, *times, *sorted(paths)[:MAX_PATHS], "end"]
            report(control, fields)
        else:
            code, running = run(COMMANDS[word], outputs[word], settings)
            os.write(control, b"%d\n" % code)


def run(
    command: list[str], output: int, settings: dict[str, Any]
) -> tuple[int, list[str]]:
    """Run a command and kill the processes that it leaves behind.

    Returns:
        Its exit code, and the names of those processes.
    """
    child = fork(lambda: become(command, output, settings))
    os.close(output)
    ended, status = os.waitpid(-1, 0)
    while ended != child:  # orphans, which pid 1 must reap
        ended, status = os.waitpid(-1, 0)
    left = processes()
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code, left  # as in a shell


def processes() -> list[str]:
    """Names of all processes besides this one and those that are ending."""
    names: list[str] = []
    for _ in range(SETTLE_TRIES):
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        names = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                state = (folder / "stat").read_bytes()
                name, _, rest = state.partition(b"(")[2].rpartition(b")")
                if folder.name != "1" and not rest.startswith(b" Z"):
                    names.append(os.fsdecode(name))
        if not names:
            break
        time.sleep(SETTLE_PAUSE)
    return sorted(names)[:MAX_PATHS]


def become(command: list[str], output: int, settings: dict[str, Any]) -> NoReturn:
    """Replace this process by a command of the candidate, with fewer privileges."""
    os.setsid()
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    drop_privileges(settings)
    # The command is fixed; text written by a model is only in the scripts.
    os.execve(command[0], command, settings["environment"])  # noqa: S606 - no shell: fixed commands


def drop_privileges(settings: dict[str, Any]) -> None:
    """Limit the privileges of root in the sandbox, effective from the next `exec`."""
    for capability in set(range(64)) - KEPT_CAPABILITIES:
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == -1:
            break  # the kernel has no further capabilities
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, settings["disk"]),
        (resource.RLIMIT_NPROC, settings["pids"]),
    ]
    if not settings["cgroups"]:
        limits.append((resource.RLIMIT_DATA, settings["memory"]))
    for limit, value in limits:
        _, most = resource.getrlimit(limit)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (value, value))


# The root filesystem.


def build(settings: dict[str, Any]) -> int:
    """Build the root filesystem and enter it; returns the directory with its changes."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    size = f"size={settings['disk']},nr_inodes=1m,mode=755"
    mount("sandbox", BASE, "tmpfs", MS_NOSUID | MS_NODEV, size)
    os.chdir(BASE)  # for relative paths: absolute ones may contain commas and colons
    for name in ("root", "lower", "upper", "work"):
        Path(name).mkdir()
    root = BASE / "root"
    if settings["rootfs"]:
        mount_writable(settings["rootfs"], root)
        changes = "upper"
    else:
        mount(root, root, "", MS_BIND)
        mount_host_programs(root, settings["host_dirs"])
        mount_repository(root, settings)
        changes = "root"
    writable = os.open(changes, os.O_RDONLY | os.O_DIRECTORY)
    build_dev(root / "dev", settings["shm"])
    mount_proc(root / "proc", settings)
    os.chdir(root)
    # With equal names, the old root is mounted over the new one; see pivot_root(2).
    check(libc.pivot_root(b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount of the host")
    os.chdir("/")
    if not settings["network"]:
        start_loopback()
    socket.sethostname("sandbox")
    return writable


def mount_writable(folder: str, target: Path) -> None:
    """Mount a directory at `target`, with a separate layer for writes."""
    mount(folder, "lower", "", MS_BIND)
    layers = "lowerdir=lower,upperdir=upper,workdir=work,userxattr"
    mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, layers)


def mount_host_programs(root: Path, host_dirs: list[str]) -> None:
    """Mount the host's programs read-only in the root filesystem."""
    for name in ("tmp", "var/tmp"):
        (root / name).mkdir(parents=True)
        (root / name).chmod(0o1777)
    for name in ("root", "run"):
        (root / name).mkdir()
    shown = []
    for path in map(Path, (*PROGRAM_DIRS, *ETC_DIRS, *host_dirs)):
        target = Path(f"{root}{path}")
        if path.is_symlink() and path.parent == Path("/"):
            target.symlink_to(path.readlink())
        elif path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            mount(path, target, "", MS_BIND | MS_REC)
            shown.append(os.fsencode(target))
    make_read_only(shown)


def make_read_only(places: list[bytes]) -> None:
    """Make every mount at or below the paths read-only."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        at = fields[4].decode("unicode_escape").encode("latin-1")
        if any(b"%b/" % place in b"%b/" % at for place in places):
            # A user namespace may not drop flags of an existing mount.
            kept = sum(OPTION_FLAGS.get(name, 0) for name in fields[5].split(b","))
            flags = MS_REMOUNT | MS_BIND | kept | MS_RDONLY | MS_NOSUID
            mount("none", os.fsdecode(at), "", flags)


def mount_repository(root: Path, settings: dict[str, Any]) -> None:
    """Mount a writable view of the repository at the workdir."""
    target = Path(f"{root}{settings['workdir']}")
    target.mkdir(parents=True, exist_ok=True)
    if settings["copy"]:
        repository = settings["repository"]
        shutil.copytree(repository, target, symlinks=True, dirs_exist_ok=True)
    else:
        mount_writable(settings["repository"], target)


def build_dev(dev: Path, shm: int) -> None:
    """Create the devices of a container in `/dev`."""
    make_folder(dev)
    mount("dev", dev, "tmpfs", MS_NOSUID, "size=1m,mode=755")
    for name in DEVICES:
        (dev / name).touch()
        mount(f"/dev/{name}", dev / name, "", MS_BIND)
    # They are the host's devices: root must not change their owner, mode, or time.
    # Writing to a device works on a read-only mount.
    make_read_only([os.fsencode(dev / name) for name in DEVICES])
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    mount("pts", dev / "pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    safe = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("shm", dev / "shm", "tmpfs", safe, f"size={shm},mode=1777")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")


def mount_proc(proc: Path, settings: dict[str, Any]) -> None:
    """Mount `/proc` read-only, because the host's root could write to `/proc/sys`."""
    make_folder(proc)
    safe = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", proc, "proc", safe)
    with suppress(OSError):  # no nested namespaces
        (proc / "sys/user/max_user_namespaces").write_text("0")
    version = tuple(int(part) for part in os.uname().release.split(".")[:2])
    # Kernels before 6.14 have one limit for the whole host.
    if not settings["cgroups"] and version >= (6, 14):
        with suppress(OSError):
            (proc / "sys/kernel/pid_max").write_text(str(settings["pids"]))
    mount("none", proc, "", MS_REMOUNT | MS_BIND | MS_RDONLY | safe)
    hidden = [proc / name for name in SECRET_PROC if (proc / name).exists()]
    for path in hidden:
        mount("/dev/null", path, "", MS_BIND)
    make_read_only([os.fsencode(path) for path in hidden])


def make_folder(path: Path) -> None:
    """Make sure that a path is a directory, whatever the image has there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        path.mkdir()


def start_loopback() -> None:
    """Bring up the loopback, the only network interface."""
    request = struct.pack("16sh14x", b"lo", IFF_UP_RUNNING)
    with socket.socket() as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, request)


# Inspection.


def listing(top: int, hidden: str) -> Listing:
    """Files below a directory, except other mounts and the `hidden` path."""
    device = os.fstat(top).st_dev
    found: Listing = {}
    folders = [""]
    while folders and len(found) < MAX_FILES:
        folder = folders.pop()
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            descriptor = os.open(f".{folder}", flags, dir_fd=top)
        except OSError:  # only an attacker creates paths that are too long
            found[folder] = ()
            continue
        with os.scandir(descriptor) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}"
                state = entry.stat(follow_symlinks=False)
                if path == hidden or state.st_dev != device:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                else:
                    found[path] = identity(state)
                if len(found) >= MAX_FILES:
                    break
        os.close(descriptor)
    return found


def identity(state: os.stat_result) -> tuple[int, ...]:
    """Metadata that changes with a file and cannot be restored from inside."""
    return (state.st_ino, state.st_mode, state.st_size, state.st_ctime_ns)


def state_of(path: str) -> tuple[int, ...]:
    """The identity of a file; empty if it is missing."""
    try:
        return identity(os.lstat(path))
    except OSError:
        return ()


def asked_paths(control: int) -> list[str]:
    """Paths in the repository that the host asks for: NUL-terminated, then a NUL."""
    text = bytearray()
    while text != b"\0" and not text.endswith(b"\0\0"):
        text += os.read(control, 1 << 16)
    return [os.fsdecode(path) for path in bytes(text).split(b"\0") if path]


def test_file(path: str) -> tuple[str, int]:
    """Digest of a file and when it changed; a word for anything but a regular file."""
    try:
        state = os.lstat(path)
        if not stat.S_ISREG(state.st_mode):
            return "no regular file", state.st_ctime_ns
        if state.st_size > MAX_TEST_BYTES:
            return f"{state.st_size} bytes", state.st_ctime_ns
        content = Path(path).read_bytes()
        return hashlib.sha256(content).hexdigest(), state.st_ctime_ns
    except OSError:
        return "missing", 0


def report(control: int, fields: list[str]) -> None:
    """Send the evidence: NUL-terminated fields, the last of them `end`."""
    message = b"".join(os.fsencode(field) + b"\0" for field in fields)
    while message:
        message = message[os.write(control, message) :]


if __name__ == "__main__":
    main()
