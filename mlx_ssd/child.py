"""What a process that computes for another owes it: to end with it, and to say in one sentence what went wrong."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from mlx_ssd import heartbeat
from mlx_ssd.errors import SsdError, WorkFailed, is_of_memory
from mlx_ssd.storage import explain_os_error

PARENT_SECONDS = 0.5
PR_SET_PDEATHSIG = 1
OUT_OF_MEMORY = 12  # exit code between a child and its supervisor: ENOMEM


def exit_code(work: Callable[[], None]) -> int:
    """Do the work, under the supervisor that started this process if one did; its exit code, the reason said on
    standard error."""
    if supervisor := heartbeat.attach():
        end_with(supervisor)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
    except SsdError as error:
        if isinstance(error, WorkFailed) and is_of_memory(error):
            return _out_of_memory(error)
        print(f"mlx-ssd: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return _out_of_memory(error)
        print(f"mlx-ssd: {explain_os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not is_of_memory(error):
            raise
        return _out_of_memory(error)
    return 0


def _out_of_memory(error: Exception) -> int:
    said = (str(error) or type(error).__name__).splitlines()[0]
    print(f"mlx-ssd: memory ran out ({said})", file=sys.stderr)
    return OUT_OF_MEMORY


def end_with(parent: int) -> None:
    """Die when the parent dies, on Linux even when stopped: work that nobody supervises would go on unseen."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=watch, daemon=True).start()
