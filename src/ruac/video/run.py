"""The way through a video from the frame with the prompts: forward to the end, back to the start, and on after an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ruac.predict import Told
from ruac.video.curve import alarms, next_frame
from ruac.video.predictor import Tracked, TrackedFrame, VideoPredictor
from ruac.video.results import PROGRESS, Record, Results, line_of
from ruac.writing import naming

STATE_EVERY = 25  # frames
WAY_BACK = "way_back"  # in a line, of an object


def track(predictor: VideoPredictor, objects: Sequence[Told], start: int, results: Results, both_ways: bool) -> list[Record]:
    """All frames of the predictor's video, one line each, in their order. objects: numbered from 1, on frame `start`; both_ways: come
    back from both ends to the start, and say where that disagrees."""
    frames = len(predictor.frames)
    way = [*range(start, frames), *range(start - 1, -1, -1)]
    back = [*range(frames - 1, start - 1, -1), *range(start)] if both_ways else []
    records: list[Record] = []
    found = results.load_state()
    if found is not None:
        records, tensors, values = found
        predictor.restore(tensors, values)
    else:
        (results.out / PROGRESS).unlink(missing_ok=True)
    path = results.out / PROGRESS
    with naming(path), path.open("a") as lines, progress("tracking", frames + len(back), len(records)) as advance:
        for done in range(len(records), frames + len(back)):
            if done < frames:
                tracked = _one(predictor, objects, start, way[done])
                results.save_frame(tracked.frame, *maps(tracked))
                records.append(describe(tracked))
            else:
                if done in (frames, 2 * frames - start):  # at either end
                    predictor.reset()
                records.append(_back(predictor, len(objects), back[done - frames], start, results))
            lines.write(line_of(records[-1]))
            if (done + 1) % STATE_EVERY == 0:
                lines.flush()
                results.save_state(done + 1, *predictor.state())
            advance()
    returned = {record["frame"]: record[WAY_BACK] for record in records[frames:]}
    for record in records[:frames] if both_ways else []:
        for number, answer in record["objects"].items():
            answer[WAY_BACK] = returned[record["frame"]].get(number)
    return sorted(records[:frames], key=lambda record: record["frame"])


def say(predictor: VideoPredictor, objects: Sequence[Told], frame: int) -> None:
    """All prompts, of objects numbered from 1. Raises PromptError for one that makes no sense."""
    for number, told in enumerate(objects, start=1):
        coords, labels = [point[:2] for point in told.points], [point[2] for point in told.points]
        predictor.add_prompt(frame, number, coords or None, labels or None, told.box)


def _one(predictor: VideoPredictor, objects: Sequence[Told], start: int, frame: int) -> TrackedFrame:
    if frame == start:
        predictor.reset()
        say(predictor, objects, start)
    elif frame == start - 1:
        predictor.step(start, reverse=True)  # so that the way back begins at the prompts
    return predictor.step(frame, reverse=frame < start)


def _back(predictor: VideoPredictor, objects: int, frame: int, start: int, results: Results) -> Record:
    """A line of the way back."""
    ids = results.load_ids(frame)
    found = predictor.step_back(frame, {number: ids == number for number in range(1, objects + 1)}, reverse=frame >= start)
    return {"frame": frame, WAY_BACK: {str(number): value for number, value in found.items()}}


def maps(tracked: TrackedFrame) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[height, width] each: the number of the object that is likeliest at a pixel, 0 for none, and the greatest uncertainty."""
    steady = [answer.steady for answer in tracked.objects.values()]
    inside = np.stack([answer.masks[0] for answer in steady])
    likeliest = np.where(inside, np.stack([answer.probability[0] for answer in steady]), -1).argmax(0)
    numbers = np.array(list(tracked.objects), np.uint8)
    ids = np.where(inside.any(0), numbers[likeliest], 0).astype(np.uint8)
    return ids, np.max([answer.uncertainty[0] for answer in steady], axis=0)


def describe(tracked: TrackedFrame) -> Record:
    """A line of frames.jsonl."""
    return {"frame": tracked.frame, "objects": {str(number): _describe(answer) for number, answer in tracked.objects.items()}}


def _describe(answer: Tracked) -> Record:
    prediction = answer.prediction
    return {
        "predicted_iou": prediction.score,
        "expected_iou": float(prediction.expected_iou[0]),
        "object_score": prediction.object_score,
        "doubt": answer.doubt,
        "own_doubt": answer.own_doubt,
        "mean_uncertainty": float(answer.steady.uncertainty[0].mean()),
        "area": int(prediction.masks[0].sum()),
        "told": answer.told,
    }


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """track.json: of each object, where it drifted and which frame to correct next. records: of all frames, in their order."""
    objects = {}
    for number in records[0]["objects"]:
        doubt = doubts(records, number)
        own = np.array([record["objects"][number]["own_doubt"] for record in records])
        told = [record["frame"] for record in records if record["objects"][number]["told"]]
        objects[number] = {
            "mean_doubt": float(doubt.mean()),
            "drift": [{"first": first, "last": last} for first, last in alarms(doubt)],
            # once trust is lost, the doubt is great on all later frames alike, and says no more which one to begin with
            "correct_next": next_frame(own, told),
        }
    return {"frames": len(records), "objects": objects}


def doubts(records: Sequence[Record], number: str) -> NDArray[np.float64]:
    """[frames] of one object."""
    return np.array([record["objects"][number]["doubt"] for record in records])


@contextmanager
def progress(words: str, frames: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """A bar with frames per second, where there is a terminal. What it gives is to be called after each frame; done: those before."""
    console = Console(stderr=True)
    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task, start, made = shown.add_task(words, total=frames, completed=done, rate=""), time.perf_counter(), count(1)
        yield lambda: shown.update(task, advance=1, rate=f"{next(made) / (time.perf_counter() - start):.1f} FPS")
