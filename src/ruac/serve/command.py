"""`ruac serve`: masks and their uncertainty over HTTP."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ruac.exchange.server import is_loopback
from ruac.serve.settings import BACKLOG, BATCH, MIB, Settings
from ruac.serve.spool import Spool
from ruac.serve.supervisor import supervise

TOKEN = "RUAC_TOKEN"
NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
MOST_CONNECTIONS = 1000  # of a worker, beside those whose requests are in its queue
FILES = 64  # that a worker has open beside them


def serve(
    host: str = "127.0.0.1",
    port: int = 8000,
    model: str = "nano",
    head: Path | None = None,
    device: str = "cpu",
    calibration: Path | None = None,
    alpha: float | None = None,
    workers: int = 1,
    queue: int = 32,
    timeout: float = 60.0,
    ttl: float = 3600.0,
    max_upload: int = 32,
    max_pixels: float = 25.0,
    cache: int = 512,
    cache_images: int = 128,
    spool: Path | None = None,
    spool_size: int = 2048,
) -> None:
    """Answer programs over HTTP: upload an image, then ask for the masks of its objects, as often as you like.

    GET /openapi.json describes every request and answer, GET /health says whether the server is well, GET /metrics is for Prometheus.
    ruac.client.Client is the same in Python. With the environment variable RUAC_TOKEN set, requests must bring that token; without it
    only this machine is served. SIGTERM or Ctrl-C: what was accepted is finished, everything else refused; a second one ends at once.

    Example: ruac serve --workers 2

    Args:
        host: Address to listen at.
        port: Port to listen at; 0 for any that is free.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        head: A head trained for that model, as a file.
        device: cpu, cuda, mps ...
        calibration: A file that ruac calibrate wrote for that model; calibration.json in the model's folder if left out and
            there is one. Answers then have an inner and an outer mask.
        alpha: The level of the calibration that is used, if it has several; the first if left out.
        workers: Processes, each with the model in its memory and its share of the cores.
        queue: Requests that a worker accepts at a time; more are answered 429.
        timeout: Seconds that a request may wait for its turn, that its work may take, and that its client may take for the answer.
        ttl: Seconds that an image is kept after its last use.
        max_upload: MiB of an image file.
        max_pixels: Megapixels of an image.
        cache: MiB of encoded images that each worker keeps in memory.
        cache_images: Encoded images that each worker keeps at most.
        spool: Folder for the uploads, which then outlive the server; a temporary one if left out.
        spool_size: MiB of uploads that are kept; when it is full, more are answered 429 until some expire.

    Raises:
        ValueError: For numbers that make no sense, an address that cannot be had, and when others could connect but there is no token.
        FileNotFoundError: When there is no such model or calibration.
        WorkError: When a worker cannot be started.
    """
    numbers = {
        "workers": workers,
        "queue": queue,
        "timeout": timeout,
        "ttl": ttl,
        "max-upload": max_upload,
        "max-pixels": max_pixels,
        "cache-images": cache_images,
        "spool-size": spool_size,
    }
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"--{name} {value:g}: must be above 0")
    if cache < 0:
        raise ValueError(f"--cache {cache}: must not be below 0")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"ruac serve needs {missing[0]}: pip install 'ruac[serve]'")
    token, connections = _token(host), _connections(queue)
    with _listen(host, port) as listener, tempfile.TemporaryDirectory(prefix="ruac-serve-") as folder:
        settings = Settings(
            model=model,
            head=head,
            device=device,
            calibration=calibration,
            alpha=alpha,
            workers=workers,
            spool=Path(folder, "images") if spool is None else spool,
            metrics=Path(folder, "metrics"),
            queue=queue,
            connections=connections,
            timeout=timeout,
            ttl=ttl,
            max_upload=max_upload * MIB,
            max_pixels=int(max_pixels * 1e6),
            cache_bytes=cache * MIB,
            cache_images=cache_images,
            spool_bytes=spool_size * MIB,
            local=is_loopback(host),
            token=token,
        )
        Spool(settings.spool, ttl, settings.spool_bytes).open()
        settings.metrics.mkdir()
        place = f"[{host}]" if ":" in host else host
        print(supervise(settings, listener, f"serving http://{place}:{listener.getsockname()[1]}; stop with Ctrl-C"))


def _token(host: str) -> str | None:
    """Of the environment. Raises ValueError where there must be one."""
    token = os.environ.get(TOKEN, "").strip()
    if not token and not is_loopback(host):
        raise ValueError(f"--host {host}: others could connect; set {TOKEN} to a long random word that requests must bring")
    return token or None


def _connections(queue: int) -> int:
    """That a worker can hold open. Raises ValueError where they are too few for the queue."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS + queue
    # each upload has two files; before the first of those that come together is refused, some more batches have been taken
    left = files - FILES - 2 * queue - 4 * BATCH
    if left < queue:
        raise ValueError(f"--queue {queue}: too much for {files} open files a process; allow more with ulimit -n, or lower it")
    return min(MOST_CONNECTIONS + queue, left)


def _listen(host: str, port: int) -> socket.socket:
    """Raises ValueError when the address cannot be had."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port}: from 0 to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ValueError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from None
