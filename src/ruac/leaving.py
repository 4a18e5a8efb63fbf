"""How a server ends that has been told to, whatever is still at work."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

INTERRUPTED = 130


def leave(reason: KeyboardInterrupt | SystemExit) -> NoReturn:
    """With the words and the exit code of the command line. All must be cleaned up.

    A thread that works with the model even now would make the interpreter's own end an abort, for torch cannot be stopped in it.
    """
    interrupted = isinstance(reason, KeyboardInterrupt)
    if interrupted:
        print("ruac: interrupted", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED if interrupted else 0)
