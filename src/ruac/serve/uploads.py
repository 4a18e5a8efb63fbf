"""An image from a request's body into its file, as it comes, never more than allowed, and never under a name that it brings along."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import UploadFile
from starlette.requests import Request

from ruac.serve.gate import too_large
from ruac.serve.spool import Incoming

CHUNK = 2**20
PLAIN = re.compile(r"[^\x00-\x1f\x7f/\\]{1,255}")
RAW: dict[str, Any] = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
BODY: dict[str, Any] = {
    "required": True,
    "description": "JPEG, PNG, WebP, TIFF, BMP, GIF or PPM, whatever the type says",
    "content": {
        "application/octet-stream": RAW,
        "image/*": RAW,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "string", "format": "binary"}},
                "required": ["image"],
            }
        },
    },
}


async def receive(request: Request, incoming: Incoming, limit: int) -> None:
    """The image alone, up to `limit` bytes. Raises HTTPException."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=1, max_fields=0) as form:
            await _copy(_chunks(_file(form.getlist("image"))), incoming, limit)
    elif kind == "application/octet-stream" or kind.startswith("image/"):
        await _copy(request.stream(), incoming, limit)
    else:
        raise HTTPException(
            415,
            "send the image as application/octet-stream or image/*, or as the file 'image' of a form: curl -F image=@photo.jpg",
        )


async def _copy(chunks: AsyncIterator[bytes], incoming: Incoming, limit: int) -> None:
    """Disks can be slow: the event loop does not wait for them."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise HTTPException(413, too_large(limit))
        await asyncio.to_thread(incoming.write, chunk)
    if not size:
        raise HTTPException(400, "an empty body; send an image")


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(CHUNK):
        yield chunk


def _file(parts: list[UploadFile | str]) -> UploadFile:
    """The file of a form. Its name is not used; one that no file has is a sign of a broken or hostile client."""
    if len(parts) != 1 or not isinstance(parts[0], UploadFile):
        raise HTTPException(422, "the form must have one file, 'image'")
    name = parts[0].filename or ""
    if not PLAIN.fullmatch(name) or name in (".", ".."):
        raise HTTPException(422, f"the file name {name[:80]!r} is none: send a plain one, without folders")
    return parts[0]
