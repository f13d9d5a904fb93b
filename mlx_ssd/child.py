"""What a process that computes for another owes it: to end with it, and to say in one sentence what went wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from mlx_ssd.errors import SsdError
from mlx_ssd.storage import explain_os_error

PARENT_SECONDS = 0.5


def end_with(parent: int) -> None:
    """Die when the parent dies: work that nobody supervises would go on for a night unseen."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def exit_code(work: Callable[[], None]) -> int:
    """Do the work; its exit code, the reason said on standard error."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
    except SsdError as error:
        print(f"mlx-ssd: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"mlx-ssd: {explain_os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
