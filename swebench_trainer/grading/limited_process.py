"""Script that limits its own process, then runs the given Python program.

`pro.py` starts it for parsers that read the output of hostile tests and may hang on it.
Parsers need neither a network nor other processes.
"""

from __future__ import annotations

import ctypes
import resource
import runpy
import sys

CPU_SECONDS = 120
MEMORY = 4 << 30
FILE_SIZE = 256 << 20

LIMITS = {
    resource.RLIMIT_CPU: CPU_SECONDS,
    resource.RLIMIT_AS: MEMORY,
    resource.RLIMIT_FSIZE: FILE_SIZE,
    resource.RLIMIT_NPROC: 0,
    resource.RLIMIT_CORE: 0,
}
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000


def limit_process() -> None:
    """Set resource limits, and drop the network if the kernel allows namespaces."""
    for kind, wanted in LIMITS.items():
        _, most = resource.getrlimit(kind)
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        # The soft limit of time sends SIGXCPU, the hard limit SIGKILL.
        hard = limit + 5 if kind == resource.RLIMIT_CPU else limit
        resource.setrlimit(kind, (limit, hard if hard <= most or most < 0 else most))
    ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK)


if __name__ == "__main__":
    limit_process()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
