"""Ends this process at the moment its lease is over, whatever it is doing.

No check in the program can do that: it may be frozen (SIGSTOP, a paused container, a machine out of CPU) after the
check and before the bytes of a write leave, and go on where it stood when somebody else leads. A signal that became due
meanwhile is delivered before a thawed process executes anything. Its handler is libc's `_exit` itself: one in Python
would run later, and the default action does not apply to process 1 of a container.
"""

from __future__ import annotations

import ctypes
import signal

EXIT_LEASE_OVER = int(signal.SIGALRM)
"""The exit code: what `_exit` is called with is the signal's number."""


def end_process_in(seconds: float) -> None:
    """End this process after so many seconds, unless called again before; 0: not at all."""
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGALRM, ctypes.cast(libc._exit, ctypes.c_void_p))
    signal.setitimer(signal.ITIMER_REAL, seconds)
