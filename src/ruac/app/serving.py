"""The page's server: where it listens, what it keeps for how long, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import FrameType

from starlette.middleware import Middleware

from ruac.app.conversation import Conversation
from ruac.app.desk import Desk
from ruac.app.guard import Guard
from ruac.app.models import Models
from ruac.app.room import Room, temporary_room
from ruac.app.samples import samples
from ruac.app.sessions import Sessions
from ruac.exchange.server import is_loopback

MAX_FILE = 64 * 2**20  # bytes of an uploaded file
ROOM_BYTES = 4 * 2**30  # of all uploads and results together
SESSIONS, SESSION_BYTES = 64, 2 * 2**30
FORGET, SWEEP = 1800.0, 30.0  # seconds without use until something is forgotten, and how often it is looked for
THREADS = 24  # that wait for the model or work with it


def serve(models: Models, folder: Path | None, host: str, port: int, show: bool) -> None:
    """Until it is interrupted or told to end (SIGTERM); nothing stays in the temporary folder. Raises ValueError when the address
    cannot be had.
    """
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with running(models, folder, host, port, show) as address:
            print(f"look at {address}; stop with Ctrl-C", flush=True)
            Event().wait()
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def running(models: Models, folder: Path | None, host: str, port: int, show: bool = False) -> Iterator[str]:
    """The page's address, for as long as it is served. Raises ValueError when the address cannot be had."""
    port = _free_port(host, port)
    sessions: Sessions[Conversation] = Sessions(SESSIONS, SESSION_BYTES, FORGET)
    done = Event()
    with temporary_room(ROOM_BYTES, FORGET) as room:
        # gradio reads these when it is imported or launched: uploads stay in the temporary folder, and nobody is told of them
        os.environ |= {"GRADIO_TEMP_DIR": str(room.files), "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}

        from ruac.app.labelling import Labelling
        from ruac.app.page import PHONE, build, style, theme

        page = build(Desk(models, samples(), room, sessions), Labelling(models, folder, room), MAX_FILE)
        Thread(target=_sweep, args=(sessions, room, done), daemon=True).start()
        try:
            page.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=show,
                prevent_thread_lock=True,
                quiet=True,
                max_threads=THREADS,
                max_file_size=MAX_FILE,
                state_session_capacity=SESSIONS,
                footer_links=[],
                enable_monitoring=False,
                ssr_mode=False,
                theme=theme(),
                css=style(),
                head=PHONE,
                app_kwargs={"middleware": [Middleware(Guard, room=room, local=is_loopback(host))]},
            )
            yield f"http://{host}:{port}"
        finally:
            done.set()
            page.close(verbose=False)


def _end(number: int, frame: FrameType | None) -> None:
    # a second one must not cut the cleaning up short
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(0)


def _sweep(sessions: Sessions[Conversation], room: Room, done: Event) -> None:
    while not done.wait(SWEEP):
        sessions.sweep()
        room.sweep()


def _free_port(host: str, port: int) -> int:
    """Raises ValueError when it is taken, or the host is none of this machine's addresses."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return probe.getsockname()[1]
    except OSError as error:
        raise ValueError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from None
