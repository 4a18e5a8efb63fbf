"""`ruac bench`: what a picture and a click cost on this machine, and what has changed since another time.

What needs torch is imported by the functions that use it, so that help and misspelt commands are answered at once.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ruac.errors import one_line
from ruac.writing import write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ruac.predictor import Predictor

FORMAT = "ruac-bench-1"
SIZE = (768, 1024)  # of the picture
WARM_UP = 3
MOST_ROUNDS = 10_000
# what the figures mean, and their unit
NAMES = {
    "load": "load the model, s",
    "encode": "encode a picture, ms",
    "decode": "answer a click, ms",
    "masks": "the mask at full size, ms",
    "uncertainty": "the uncertainty at full size, ms",
    "click": "a click with both, ms",
    "head": "share of the head in a click, %",
    "memory": "peak memory, MB",
}


@dataclass(frozen=True)
class Figure:
    """Median and quartiles; of what is measured once, three times the same."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: list[float]) -> Figure:
        if len(values) == 1:
            return Figure(*values * 3)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Figure(median, low, high)


def bench(
    model: str = "nano",
    head: Path | None = None,
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    compile: bool = False,
    rounds: int = 20,
    threads: int | None = None,
    out: Path | None = None,
    compare: list[Path] | None = None,
) -> None:
    """How fast a model is on this machine, and how much memory it takes; medians, and the range of the middle half.

    With --compare, nothing is measured: two results are held against each other, such as those of two versions.

    Example: ruac bench --model nano --out before.json

    Args:
        model: As for ruac predict, or a folder that ruac export wrote.
        head: A head trained for that model, as a file.
        device: cpu, cuda, mps ...
        precision: fp32, or bf16 for GPUs.
        compile: Let torch.compile work on the encoder first, with CUDA graphs on a GPU; takes minutes.
        rounds: How often everything is measured.
        threads: Of the processor; as many as torch thinks best if left out.
        out: File for the result, as JSON.
        compare: Two such files, the earlier one first.

    Raises:
        ValueError: For other than two files, and files that are no such results.
        FileNotFoundError: When there is no such model or file.
    """
    if compare is not None:
        if len(compare) != 2:
            raise ValueError(f"--compare takes two files, the earlier one first, not {len(compare)}")
        print(comparison(*map(read, compare)))
        return
    if not 2 <= rounds <= MOST_ROUNDS:
        raise ValueError(f"--rounds {rounds}: from 2 to {MOST_ROUNDS}")
    if threads is not None and threads < 1:
        raise ValueError(f"--threads {threads}: at least 1")

    import torch

    from ruac.machine import describe_machine
    from ruac.model import weights_sha256
    from ruac.predictor import Predictor

    if threads is not None:
        torch.set_num_threads(threads)
    start = time.perf_counter()
    predictor = Predictor(model, device, head, precision=precision, compile=compile)
    figures = {"load": Figure.of([time.perf_counter() - start]), **measure(predictor, rounds)}
    result = {
        "format": FORMAT,
        "model": model,
        "model_sha256": weights_sha256(predictor.model),
        "machine": f"{describe_machine()}, {torch.get_num_threads()} threads",
        "precision": precision,
        "compiled": compile,
        "rounds": rounds,
        "figures": {name: asdict(figure) for name, figure in figures.items()},
    }
    if out is not None:
        write_whole(out, (json.dumps(result, indent=2, allow_nan=False) + "\n").encode())
    print(table(result))


def measure(predictor: Predictor, rounds: int) -> dict[str, Figure]:
    """All figures of NAMES but `load`; without `head` where a model does not run on torch."""
    import numpy as np

    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    height, width = SIZE
    points, labels = [[width // 3, height // 2], [width // 4, height // 4]], [1, 0]
    taken: dict[str, list[float]] = {}
    more_of_head = _head_alone(predictor, image)
    for turn in range(-WARM_UP, rounds):
        parts = {"encode": _milliseconds(lambda: predictor.set_image(image), predictor)}
        prediction = predictor.predict(points, labels)
        parts["decode"] = _milliseconds(lambda: predictor.predict(points, labels), predictor)
        parts["masks"] = _milliseconds(partial(getattr, prediction, "masks"), predictor)
        parts["uncertainty"] = _milliseconds(partial(getattr, prediction, "uncertainty"), predictor)
        parts["click"] = parts["decode"] + parts["masks"] + parts["uncertainty"]
        if more_of_head is not None:
            parts["head"] = 100 * more_of_head() / parts["click"]
        if turn >= 0:
            for name, value in parts.items():
                taken.setdefault(name, []).append(value)
    figures = {name: Figure.of(values) for name, values in taken.items()}
    return figures | {"memory": Figure.of([_peak_megabytes(predictor)])}


def _head_alone(predictor: Predictor, image: NDArray[np.uint8]) -> Callable[[], float] | None:
    """What measures the milliseconds that the head takes beyond the plain one's product; None where the head is inside a graph."""
    import torch

    from ruac.features import Prompts
    from ruac.heads import PlainHead
    from ruac.model import RuacModel, chosen_token

    model = predictor.model
    if not isinstance(model, RuacModel):
        return None
    with torch.inference_mode():
        prepared, frame = model.prepare(torch.from_numpy(image).permute(2, 0, 1))
        middle = torch.full((1, 1, 1, 2), model.side / 2, device=model.device)
        prompts = Prompts(middle, torch.ones_like(middle[..., 0]).long())
        features = model.decode(model.encode(prepared[None].to(model.device), (frame,)), prompts)
        chosen, plain = features.select(chosen_token(features, prompts, model.stability)), PlainHead()

    @torch.inference_mode()
    def more() -> float:
        return _milliseconds(lambda: model(chosen), predictor) - _milliseconds(lambda: plain(chosen), predictor)

    return more


def _milliseconds(action: Callable[[], object], predictor: Predictor) -> float:
    import torch

    cuda = predictor.model.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    action()
    if cuda:
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def _peak_megabytes(predictor: Predictor) -> float:
    """Of the accelerator where the model is on one, else of this process."""
    import torch

    if predictor.model.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    from ruac.machine import peak_megabytes

    return peak_megabytes()


def read(file: Path) -> dict[str, Any]:
    """A result. Raises FileNotFoundError, and ValueError for a file that is none."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; ruac bench --out writes one")
    try:
        result = json.loads(file.read_text())
        if result["format"] != FORMAT:
            raise ValueError(f"of the format {result['format']!r}, not {FORMAT!r}")
        figures = {name: Figure(**figure) for name, figure in result["figures"].items() if name in NAMES}
        numbers = [number for figure in figures.values() for number in asdict(figure).values()]
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise ValueError("a figure is no number")
        return {"model": str(result["model"]), "machine": str(result["machine"]), "figures": figures}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{file}: no result of ruac bench ({one_line(error)})") from None


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    rows = [
        f"{NAMES[name]:<36}{figure['median']:>9.2f}   {figure['low']:.2f} to {figure['high']:.2f}"
        for name, figure in result["figures"].items()
    ]
    return "\n".join([f"{result['model']} on {result['machine']}, {result['rounds']} rounds", *rows])


def comparison(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A row a figure that both have; a difference counts where the middle halves of the rounds do not meet."""
    lines = [
        f"warning: of different {what}s: {before[what]}; {after[what]}"
        for what in ("model", "machine")
        if before[what] != after[what]
    ]
    lines.append(f"{'':<36}{'before':>9}{'after':>9}{'ratio':>8}")
    for name in NAMES:
        a, b = before["figures"].get(name), after["figures"].get(name)
        if a is None or b is None:
            continue
        once = a.low == a.high and b.low == b.high
        verdict = "measured once" if once else "less" if b.high < a.low else "more" if b.low > a.high else "same"
        ratio = f"{b.median / a.median:.2f}" if a.median > 0 else "-"
        lines.append(f"{NAMES[name]:<36}{a.median:>9.2f}{b.median:>9.2f}{ratio:>8}  {verdict}")
    return "\n".join(lines)
