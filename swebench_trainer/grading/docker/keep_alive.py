"""The first process of a container, which only waits and cannot be ended from inside.

A container lives as long as its first process. A shell that calls sleep(1) lives as long
as a candidate lets it: the candidate is root and may delete or kill its programs. Here
the first process is a program of its own, 250 bytes of machine code. It needs no file of
the image, deletes its own file at once, and is not dumpable, so that no process in the
container can trace it or write to its memory. Signals from inside do not reach a first
process. Orphans of tests do not become zombies, because it ignores SIGCHLD.

It is uploaded, not mounted, because the daemon may run on another machine.
"""

from __future__ import annotations

import struct

PATH = "/.swebench-trainer-wait"
"""Where the program is until it starts."""

_X86_64 = bytes.fromhex(
    # prctl(PR_SET_DUMPABLE, 0)
    "b89d000000 bf04000000 31f6 0f05"
    # rt_sigaction(SIGCHLD, {SIG_IGN}, NULL, 8), on the stack
    "6a00 6a00 6a00 6a01 b80d000000 bf11000000 4889e6 31d2 41ba08000000 0f05"
    # unlink(argv[0])
    "488b7c2428 b857000000 0f05"
    # do r = nanosleep(&left, &left); while (r == -EINTR);
    "6a00 68 44332211 b823000000 4889e7 4889e6 0f05 83f8fc 74ee"
    # exit(0)
    "b83c000000 31ff 0f05"
)
_AARCH64 = bytes.fromhex(
    "e81480d2 800080d2 010080d2 010000d4"  # prctl
    "f30740f9 ff8300d1 200080d2 e07f00a9 ff7f01a9"  # argv[0]; {SIG_IGN} on the stack
    "c81080d2 200280d2 e1030091 020080d2 030180d2 010000d4"  # rt_sigaction
    "680480d2 600c8092 e10313aa 020080d2 010000d4"  # unlinkat
    "60010018 e07f00a9 a80c80d2 e0030091 e1030091 010000d4 1f1000b1 60ffff54"  # nanosleep
    "a80b80d2 000080d2 010000d4"  # exit
    "44332211"
)
_SECONDS = bytes.fromhex("44332211")
"""Stands for the number of seconds in the machine code."""

_PROGRAMS = {
    "x86_64": (62, _X86_64),
    "amd64": (62, _X86_64),
    "aarch64": (183, _AARCH64),
    "arm64": (183, _AARCH64),
}
"""ELF machine number and code, by the architecture that a daemon reports."""

ARCHITECTURES = frozenset(_PROGRAMS)
"""Architectures of daemons that have a program."""

_HEADER, _SEGMENT = "<16sHHIQQQIHHHHHH", "<IIQQQQQQ"
_ADDRESS = 0x400000
_MAX_SECONDS = 2**31 - 1


def program(architecture: str, seconds: float) -> bytes:
    """An executable that waits for `seconds` and exits.

    Args:
        architecture: Of the daemon, not of the image, so that it is never emulated.
        seconds: Rounded down, at least 1.

    Raises:
        KeyError: There is no program for the architecture.
    """
    machine, code = _PROGRAMS[architecture]
    life = min(max(int(seconds), 1), _MAX_SECONDS)
    code = code.replace(_SECONDS, struct.pack("<I", life))
    start = struct.calcsize(_HEADER) + struct.calcsize(_SEGMENT)
    size = start + len(code)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")  # 64 bits, little endian
    entry, first_segment = _ADDRESS + start, struct.calcsize(_HEADER)
    header = struct.pack(
        _HEADER,
        *(ident, 2, machine, 1, entry, first_segment, 0, 0),
        *(first_segment, struct.calcsize(_SEGMENT), 1, 0, 0, 0),
    )
    # One loadable segment, readable and executable: the whole file.
    segment = struct.pack(
        _SEGMENT, 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x10000
    )  # aligned for pages of 64 KiB
    return header + segment + code
