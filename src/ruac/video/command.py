"""`ruac video`: follow objects through a video, and see where the track may be wrong and which frame to correct."""

from __future__ import annotations

from pathlib import Path


def video(
    source: Path,
    point: list[str] | None = None,
    box: list[str] | None = None,
    separate: bool = False,
    frame: int = 0,
    both_ways: bool = False,
    out: Path = Path("out"),
    model: str = "nano",
    head: Path | None = None,
    device: str = "cpu",
) -> None:
    """Follow the objects that you point at on one frame through all of a video, with an uncertainty for every pixel and frame.

    Writes masks/00000.png ... (indexed: 0 background, 1 the first object ...), uncertainty/00000.png ... (16 bits; 65535 is a coin
    toss), frames.jsonl (a line a frame: expected IoU, doubt, object score ...), track.json (where the track drifted, and which
    frame to correct next), overlay.mp4 (to look at, with the doubt over time), settings.json and SHA256SUMS. Frames are read one at a
    time, so hours of video need no more memory than seconds. A run that was stopped goes on where it was, even after kill -9.

    Example: ruac video clip.mp4 --point 320,240 --out out

    Args:
        source: A film, or a folder of frames.
        point: x,y of a pixel of the object, or x,y,0 of one beside it. Repeat it for more points of the same object.
        box: x0,y0,x1,y1 around the object, the same that the points are on. Without points, repeat it for several objects.
        separate: Make every point an object of its own, and every box.
        frame: The frame that the points and boxes are on, from 0; from there the video is followed to its end, and back to its start.
        both_ways: Also follow what was found from both ends of the video back to that frame, and write to frames.jsonl where the way
            back disagrees. Takes about twice the time, and leaves everything else as it is.
        out: Folder for the results; made if need be.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM. SAM 2, SAM 3 and EdgeTAM use their own memory.
        head: A head trained for that model, as a file.
        device: cpu, cuda, mps ...

    Raises:
        ValueError: For prompts that make no sense, for what is no video, and for a folder with results of something else.
        FileNotFoundError: When there is no such video or model.
    """
    from ruac.predict import group, parse_box, parse_point
    from ruac.writing import only_writer, require_folder

    objects = group([parse_point(text) for text in point or []], [parse_box(text) for text in box or []], separate)
    if len(objects) > 254:
        raise ValueError(f"{len(objects)} objects: a mask file can number 254")
    require_folder(out)

    from ruac.video.frames import Stills, open_frames, require_av
    from ruac.video.movie import write_movie
    from ruac.video.opening import tracker_sha256
    from ruac.video.predictor import VideoPredictor
    from ruac.video.results import OVERLAY, Results
    from ruac.video.run import say, summarise, track

    require_av()
    frames = open_frames(source)
    if not 0 <= frame < len(frames):
        raise ValueError(f"--frame {frame}: the video has frames 0 to {len(frames) - 1}")
    predictor = VideoPredictor(model, device, head, keep=0)
    predictor.set_video(frames)
    say(predictor, objects, frame)  # before there is a folder: these prompts may make no sense
    settings = {
        "source": str(source),
        "source_bytes": sum(file.stat().st_size for file in (frames.files if isinstance(frames, Stills) else [source])),
        "frames": len(frames),
        "size": list(frames.size),
        "frame": frame,
        "objects": [{"points": [list(each) for each in told.points], "box": told.box and list(told.box)} for told in objects],
        "model": model,
        "model_sha256": tracker_sha256(predictor.image, predictor.video),
        "both_ways": both_ways,
    }
    with only_writer(out):
        results = Results.open(out, settings)
        if not results.finished():
            records = track(predictor, objects, frame, results, both_ways)
            results.save_track(records, summarise(records))
            write_movie(frames, records, results)
            results.seal()
        results.clear()
    print(f"look at {out / OVERLAY}")
