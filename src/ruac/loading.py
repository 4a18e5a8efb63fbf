"""`load`: a model by name, folder, file or hub id, whoever wrote it; never a pickle, never half a model."""

from __future__ import annotations

import json
import re
import ssl
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel, Sam2Model

from ruac import checksums
from ruac.adapter import load_head
from ruac.errors import one_line
from ruac.families import model_class, official
from ruac.model import RuacConfig, RuacModel, channels_last
from ruac.quality.expected import Quality

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SHARDS = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
HUB_SECONDS = 5.0  # to answer in
MOST_PARTS = 1000  # of each kind: layers, blocks, masks, ...
PARTS = re.compile("layers|depth|blocks|levels|stages|outputs|point_embeddings|labels|classes")
UNTRAINED = "the uncertainty of '{}' is not trained: until a head is loaded (head=…) or trained it is the plain logits' entropy"

Model = TypeVar("Model", bound=PreTrainedModel)


def load(
    model: str | Path, device: str = "cpu", *, head: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> RuacModel:
    """A model ready for `Predictor`.

    model: "nano", which ships with the package; a folder that `save_pretrained` wrote, of RUAC or of any Segment Anything model of
    transformers'; a file or folder of weights under the names of the original SAM 2 code; or a hub id "owner/name" of any of these.
    head: a head saved by `adapter.save_head` to use with it. dtype: of the Segment Anything model; the head stays in full precision.

    Warns when the model has no trained head. Raises FileNotFoundError where there is no model, ValueError for one that cannot be
    used, for a head that does not fit, and for a device that is not there.
    """
    check_device(device)
    loaded = read(model)
    if head is not None:
        load_head(loaded, Path(head))
    if not loaded.config.head_trained:
        warnings.warn(UNTRAINED.format(model), stacklevel=2)
    loaded.eval().to(device=device)  # pyright: ignore[reportCallIssue]  hidden by transformers' own signature
    cast(nn.Module, loaded.sam).to(dtype)
    return channels_last(loaded)


def read(model: str | Path) -> RuacModel:
    """The model as it is stored, on the CPU in full precision and without a word about its head; else as `load`."""
    try:
        loaded = _read(model)
        broken = [name for name, value in loaded.state_dict().items() if not torch.isfinite(value).all()]
        if broken:
            raise ValueError(f"{len(broken)} tensors hold NaN or infinity, such as {broken[0]}")
        if loaded.side < 1:
            raise ValueError(f"its pictures have a side of {loaded.side} pixels")
        Quality.of(loaded.config.quality)
    except FileNotFoundError as error:
        raise FileNotFoundError(one_line(error, str(model))) from None
    except ValueError as error:
        raise ValueError(one_line(error, str(model))) from None
    except Exception as error:  # noqa: BLE001  a damaged configuration makes transformers raise whatever it trips over
        raise ValueError(one_line(error, f"{model}: cannot be loaded, {type(error).__name__}")) from None
    return loaded


def _read(model: str | Path) -> RuacModel:
    path = files("ruac") / "weights" / "nano" if str(model) == "nano" else Path(model)
    path = Path(str(path))
    if path.is_file():
        return _from_official(path)
    if path.is_dir():
        return _from_folder(path)
    if str(model).count("/") == 1 and not str(model).startswith((".", "/", "~")):
        return _from_hub(str(model))
    raise FileNotFoundError(f"no model at {path}: expected 'nano', a folder with {CONFIG} and {WEIGHTS}, or a hub id")


def _from_folder(folder: Path) -> RuacModel:
    if not ((folder / WEIGHTS).is_file() or (folder / SHARDS).is_file()):
        pickles = [file.name for file in sorted(folder.iterdir()) if file.suffix in PICKLES]
        found = f"; {pickles[0]} is a pickle, which is never loaded: convert it to safetensors" if pickles else ""
        raise FileNotFoundError(f"no model at {folder}: expected a folder with {CONFIG} and {WEIGHTS}, or 'nano'{found}")
    checksums.verify(folder)
    kind = _kind(folder / CONFIG) if (folder / CONFIG).is_file() else None
    return _from_official(folder / WEIGHTS) if kind is None else _from_transformers(str(folder), kind)


def _from_hub(name: str) -> RuacModel:
    fetched = not _hub_answers()  # what was fetched before is all there is, then
    try:
        try:
            kind = _kind(Path(hf_hub_download(name, CONFIG, local_files_only=fetched)))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # no network, which is not the same as no file
                raise
            kind = None
        if kind is None:
            return _from_official(Path(hf_hub_download(name, WEIGHTS, local_files_only=fetched)))
        return _from_transformers(name, kind, fetched)
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = "it cannot be reached, nor was this model fetched before" if fetched else one_line(error)
        raise FileNotFoundError(f"no model '{name}': no such folder, and the hub has none for us ({reason})") from None


def _hub_answers() -> bool:
    """Whether there is a way to the hub: where there is none, its own client goes on trying for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_SECONDS).close()
    except HTTPError:
        return True
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the client may know another authority
    except OSError:
        return False
    return True


def _kind(config: Path) -> str | None:
    """The model_type of a configuration. Raises ValueError for a file that is none, or that wants more parts than any model has."""
    try:
        found = json.loads(config.read_text())
        kind = found.get("model_type")
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(f"{config}: not a model's configuration") from None
    _require_few_parts(found, "", config)
    return kind


def _require_few_parts(value: Any, key: str, config: Path) -> None:
    """What is built of a configuration is built before its weights are looked at, part by part."""
    if isinstance(value, dict):
        for inner, part in value.items():
            _require_few_parts(part, inner, config)
    elif isinstance(value, list):
        for part in value:
            _require_few_parts(part, key, config)
    elif isinstance(value, int) and value > MOST_PARTS and PARTS.search(key):
        raise ValueError(f"{config}: {key} is over the limit of {MOST_PARTS}")


def _from_transformers(name: str, kind: str, fetched: bool = False) -> RuacModel:
    if kind == RuacConfig.model_type:
        return pretrained(RuacModel, name, fetched)
    return RuacModel.around(pretrained(model_class(kind), name, fetched))


def pretrained(of: type[Model], name: str, fetched: bool = False) -> Model:
    """`from_pretrained` that does not fill in for what is missing. fetched: before, so do not look further. Raises ValueError."""
    arguments: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
    arguments["local_files_only"] = fetched
    arguments["ignore_mismatched_sizes"] = True  # they are refused below, with all else that does not fit
    loaded, report = cast(tuple[Model, dict[str, Any]], of.from_pretrained(name, **arguments))
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in report[what])
        if keys:
            raise ValueError(
                f"{name}: {len(keys)} tensors with {what.replace('_', ' ')}, such as {keys[0]}: not this model's weights"
            )
    return loaded


def _from_official(file: Path) -> RuacModel:
    """Weights under the names of the original SAM 2 code, with or without RUAC's own head."""
    if file.suffix in PICKLES:
        raise ValueError(f"{file}: a pickle, which is never loaded: convert it to safetensors")
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: not a safetensors file, or a damaged one ({one_line(error)})") from None
    if not official.is_official(tensors):
        raise ValueError(f"{file}: neither beside a {CONFIG} nor with the tensor names of the original SAM 2 code")
    converted = official.convert(tensors)
    with torch.device("meta"):
        sam = Sam2Model(converted.config)
    sam.load_state_dict({name: value.float() for name, value in converted.sam.items()}, assign=True)
    model = RuacModel.around(sam, head="exact" if converted.head is None else "paper")
    if converted.head is not None:
        model.head.load_state_dict(converted.head)
        model.config.head_trained = True
    return model


def check_device(device: str) -> None:
    """Raises ValueError for one that this machine or this torch does not have."""
    try:
        if torch.empty(0, device=device).is_meta:
            raise ValueError(f"--device {device}: computes nothing; use cpu")
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: not available here ({one_line(error)}); use cpu") from None
