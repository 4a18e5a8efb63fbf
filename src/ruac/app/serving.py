"""The page's server: where it listens, what it keeps for how long, and how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from types import FrameType

from fastapi import FastAPI

from ruac.app.conversation import Conversation
from ruac.app.desk import Desk
from ruac.app.guard import HANDLERS, Guard
from ruac.app.models import Models
from ruac.app.room import Room, temporary_room
from ruac.app.samples import samples
from ruac.app.server import Server
from ruac.app.sessions import Sessions
from ruac.exchange.server import is_loopback
from ruac.leaving import leave

MAX_FILE = 64 * 2**20  # bytes of an uploaded file
ROOM_BYTES = 4 * 2**30  # of all uploads and results together
SESSIONS, SESSION_BYTES = 64, 2 * 2**30
FORGET, SWEEP = 1800.0, 30.0  # seconds without use until something is forgotten, and how often it is looked for
THREADS = 24  # that wait for the model or work with it
LAST = 20.0  # seconds that what works with the model has at the end
THREAD = "ruac app"  # of the server


def serve(models: Models, folder: Path | None, host: str, port: int, show: bool) -> None:
    """Until it is interrupted or told to end (SIGTERM); nothing stays in the temporary folder. Raises ValueError when the address
    cannot be had.
    """
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with running(models, folder, host, port, show) as address:
            print(f"look at {address}; stop with Ctrl-C", flush=True)
            Event().wait()
    except (KeyboardInterrupt, SystemExit) as reason:
        leave(reason)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def running(models: Models, folder: Path | None, host: str, port: int, show: bool = False) -> Iterator[str]:
    """The page's address, for as long as it is served. Raises ValueError when the address cannot be had."""
    sessions: Sessions[Conversation] = Sessions(SESSIONS, SESSION_BYTES, FORGET)
    done = Event()
    with ExitStack() as last, temporary_room(ROOM_BYTES, FORGET) as room:
        listener = last.enter_context(_listen(host, port))
        # gradio reads these when it is imported or mounted: uploads stay in the temporary folder, and nobody is told of them
        os.environ |= {"GRADIO_TEMP_DIR": str(room.files), "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}

        import gradio as gr

        from ruac.app.labelling import Labelling
        from ruac.app.page import PHONE, build, style, theme

        desk = Desk(models, samples(), room, sessions)
        page, part = build(desk, Labelling(models, folder, room), MAX_FILE)
        page.max_threads, page.state_session_capacity = THREADS, SESSIONS
        app = gr.mount_gradio_app(
            FastAPI(openapi_url=None),
            page,
            "/",
            server_name=host,
            server_port=listener.getsockname()[1],
            max_file_size=MAX_FILE,
            footer_links=[],
            show_error=False,
            enable_monitoring=False,
            ssr_mode=False,
            theme=theme(),
            css=style(),
            head=PHONE,
            app_kwargs={"exception_handlers": HANDLERS},
        )
        server = Server(Guard(app, room, is_loopback(host), part), listener, THREAD)
        Thread(target=_sweep, args=(sessions, room, done), daemon=True).start()
        server.start()
        address = f"http://{host}:{listener.getsockname()[1]}"
        try:
            if show:
                webbrowser.open(address)
            yield address
        finally:
            done.set()
            desk.close()
            page.close(verbose=False)
            server.should_exit = True
            # a job that labels ends where it can write no more, so the room goes first
            last.callback(shutil.rmtree, room.files.parent, ignore_errors=True)
            last.callback(server.join, LAST)


def _end(number: int, frame: FrameType | None) -> None:
    # a second one must not cut the cleaning up short
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(0)


def _sweep(sessions: Sessions[Conversation], room: Room, done: Event) -> None:
    while not done.wait(SWEEP):
        sessions.sweep()
        room.sweep()


def _listen(host: str, port: int) -> socket.socket:
    """Raises ValueError when it is taken, or the host is none of this machine's addresses."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ValueError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from None
