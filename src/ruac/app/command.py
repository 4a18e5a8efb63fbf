"""`ruac app`: a page in the browser, served from this machine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def app(
    models: list[str] | None = None,
    head: Path | None = None,
    folder: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    device: str = "cpu",
    calibration: Path | None = None,
    alpha: float | None = None,
    open: bool = False,
) -> None:
    """Click on objects in the browser, and see where their masks may be wrong.

    The page shows mask, uncertainty and probability after every click, suggests the next one, and offers the results for download;
    another tab labels many pictures at once. It works offline. It is for this machine alone unless --host says otherwise; there is
    no password. What people upload is kept in a temporary folder and in memory only, for half an hour after their last click.

    Example: ruac app --open

    Args:
        models: Models to choose from, the first one first: nano (if left out), folders, hub ids (owner/name) or files of original
            SAM 2 weights. No others can be loaded from the page.
        head: A head trained for the first model, as a file.
        folder: Pictures on this machine that everybody who sees the page may label.
        host: Address to listen at.
        port: Port to listen at; 0 for any that is free.
        device: cpu, cuda, mps ...
        calibration: A file that ruac calibrate wrote for the first model; calibration.json in its folder if left out and there is one.
        alpha: The level of that calibration, if it has several; the first if left out.
        open: Show the page in the browser.

    Raises:
        ValueError: When gradio is not installed, there is no such folder, or the address is taken.
        FileNotFoundError: When there is no such model or calibration.
    """
    if find_spec("gradio") is None:
        raise ValueError("ruac app needs gradio: pip install 'ruac[app]'")
    if folder is not None and not folder.is_dir():
        raise ValueError(f"--folder {folder}: no such folder")
    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port}: from 0 to 65535")

    from ruac.app.models import Models
    from ruac.app.serving import serve

    names = models or ["nano"]
    allowed = Models(names, device, head, calibration, alpha)
    allowed.get(names[0])  # what is wrong with it should be known before anybody comes
    serve(allowed, folder, host, port, open)
