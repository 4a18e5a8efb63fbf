"""Do broken files ever do more than be refused? 100,000 of them through every reader of the project.

    python benchmarks/fuzz.py             # some minutes on one core
    python benchmarks/fuzz.py --quick     # 2,000 of them, under 50 s

Valid files of every kind are changed, byte by byte and in what the bytes mean, and read as the commands read them. Each is to be
accepted, or refused with the errors that the command line says in a line (ValueError, FileNotFoundError, WorkError) and that name
the file; within LIMIT seconds of processor time and MEMORY bytes; with nothing written outside the folder that it is read in,
nothing read that only a name in the file leads to, no program started, no connection made and nothing unpickled, which Python's
audit events tell, and a look around the folder at the end. The same --seed gives the same files. Those that fail are kept in --out.
Prints a line a kind of file and, last, one JSON object; exit code 1 when anything failed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from fuzz_seeds import colours, saved
from fuzz_targets import Target, targets

from ruac.errors import WorkError
from ruac.machine import describe_machine

CASES, QUICK = 100_000, 2_000
LIMIT = 5.0  # seconds of processor time an input
SILENCE = 40.0  # seconds after which a process that says nothing is stuck
MEMORY = 3 * 2**30  # bytes beyond what is there before the first input
LONGEST = 3000  # characters of a refusal
KEPT = 3  # files of each failure
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class")
CHANGING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.chown")


class TooLong(BaseException):
    """An input took more than LIMIT."""


@dataclass
class Tally:
    """Of one target."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=CASES, help="how many files, of all kinds together")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="kinds of files whose name holds this")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="folder for the files that fail")
    options = parser.parse_args()
    start = time.perf_counter()
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)  # those of OpenMP do not survive a fork: what the readers then wait for never comes
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "made").mkdir()
        found = [target for target in targets(Path(name) / "made") if (options.only or "") in target.name]
        total = sum(target.share for target in found)
        cases = QUICK if options.quick else options.cases
        tallies: dict[str, Tally] = {}
        for number, target in enumerate(found):
            lab = Lab(target, Path(name) / str(number), options.seed, options.out)
            tallies[target.name] = tally = lab.run(math.ceil(cases * target.share / total))
            print(
                f"{target.name:<24}{tally.inputs:>7} inputs {tally.accepted:>6} accepted {tally.refused:>6} refused "
                f"{tally.failures.total():>5} failed  slowest {tally.slowest:.2f} s",
                flush=True,
            )
            for words, times in tally.failures.most_common():
                print(f"    {times:>5} x {words}", flush=True)
    return report(tallies, options.seed, time.perf_counter() - start, options.quick)


def report(tallies: dict[str, Tally], seed: int, seconds: float, quick: bool) -> int:
    """Prints the JSON object; returns the exit code."""
    failed = sum(tally.failures.total() for tally in tallies.values())
    figures = {
        "inputs": sum(tally.inputs for tally in tallies.values()),
        "accepted": sum(tally.accepted for tally in tallies.values()),
        "refused": sum(tally.refused for tally in tallies.values()),
        "failed": failed,
        "slowest_s": round(max(tally.slowest for tally in tallies.values()), 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "seconds": round(seconds),
    }
    by_target = {name: [tally.inputs, tally.accepted, tally.refused, tally.failures.total()] for name, tally in tallies.items()}
    targets = {"failed": 0, "slowest_s": LIMIT}
    missed = [name for name, most in targets.items() if figures[name] > most]
    more = {"seed": seed, "quick": quick, "kinds": by_target, "machine": describe_machine()}
    print(json.dumps({"figures": figures, "targets": targets, "missed": missed, **more}))
    return 1 if missed else 0


def content_of(target: Target, seed: int, number: int) -> bytes:
    """The broken file of that number; 0 is a valid one, for where that is refused nothing is tried but the front door."""
    if not number:
        return target.valid[0]
    rng = random.Random(f"{seed} {target.name} {number}")
    return rng.choice(target.mutations)(rng, rng.choice(target.valid))


class Lab:
    """One target, read in processes of its own: what kills or stops one is noted, and the next goes on behind it."""

    def __init__(self, target: Target, root: Path, seed: int, out: Path):
        """root: of a folder to be made, with what names in files may lead to beside the one that is read in."""
        self.target, self.seed, self.out = target, seed, out
        self.folder, self.secret = root / "inside", root / "secret.png"
        root.mkdir()
        self.hidden = saved(colours(), "PNG")
        self.secret.write_bytes(self.hidden)
        self.tally = Tally()

    def run(self, count: int) -> Tally:
        self._lay_out()
        first = 0
        while first < count:
            first = self._in_a_process(first, count)
        # libraries in C write without a word to Python
        strange = {path.name for path in self.secret.parent.iterdir()} - {self.folder.name, self.secret.name}
        if strange or self.secret.read_bytes() != self.hidden:
            self.tally.failures[f"wrote outside of its folder: {sorted(strange) or self.secret.name}"] += 1
        return self.tally

    def _in_a_process(self, first: int, count: int) -> int:
        """The number of the input to go on with."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            _work(self, first, count, writing)
        os.close(writing)
        rest = b""
        while select.select([reading], [], [], SILENCE)[0]:
            chunk = os.read(reading, 65536)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                seconds, accepted, problem = json.loads(line)
                self._count(first, seconds, accepted, problem)
                first += 1
        else:
            os.kill(child, signal.SIGKILL)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        if first < count:
            died = os.waitstatus_to_exitcode(status)
            self._count(first, 0.0, False, f"the process ended with {died} (-9: after {SILENCE:g} s without a word)")
            first += 1
            self._lay_out()
        return first

    def _count(self, number: int, seconds: float, accepted: bool, problem: str) -> None:
        tally = self.tally
        tally.inputs += 1
        tally.slowest = max(tally.slowest, seconds)
        if not problem:
            tally.accepted += accepted
            tally.refused += not accepted
            return
        problem = problem.encode("utf-8", "backslashreplace").decode()
        tally.failures[problem] += 1
        if tally.failures[problem] <= KEPT:
            kept = self.out / f"{self.target.name.replace(' ', '-')}-{self.seed}-{number}"
            kept.mkdir(parents=True, exist_ok=True)
            (kept / Path(self.target.file).name).write_bytes(content_of(self.target, self.seed, number))
            (kept / "problem.txt").write_text(problem + "\n")

    def _lay_out(self) -> None:
        """The folder as it is before every input."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, content in {**self.target.others, self.target.file: self.target.valid[0]}.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for place in (self.folder, self.folder / "images"):
            if place.is_dir():
                (place / "link").symlink_to(self.secret)

    def _put(self, content: bytes) -> None:
        (self.folder / self.target.file).write_bytes(content)

    def judge(self, watch: Watch, content: bytes) -> tuple[float, bool, str]:
        """Processor time in seconds, whether it was accepted, and what is wrong with that, empty when nothing is."""
        self._put(content)
        accepted, problem, start = False, "", time.process_time()
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        watch.begin()
        try:
            self.target.read(self.folder)
            accepted = True
        except TooLong:
            problem = f"took more than {LIMIT:g} s"
        except BaseException as error:  # noqa: BLE001  which ones are right is what is asked
            problem = self._not_a_refusal(error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            watch.on = False
        seconds = time.process_time() - start
        if watch.seen:
            problem = watch.seen[0]
        if watch.written:
            self._lay_out()
        return seconds, accepted, problem

    def _not_a_refusal(self, error: BaseException) -> str:
        """Why it is none; empty when it is one."""
        kind, text = type(error), str(error)
        own = kind in (ValueError, FileNotFoundError, WorkError) or (
            isinstance(error, ValueError | WorkError) and kind.__module__.startswith("ruac.")
        )
        if kind.__name__ == "ArgumentError":  # of the command line's own parser, which is what refuses there
            own = True
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/ruac/" in frame.filename]
        place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        if not own:
            return f"{kind.__name__}{place}: {' '.join(text.split())[:100]}"
        if not text or len(text) > LONGEST:
            return f"a refusal of {len(text)} characters{place}"
        if self.target.culprit and Path(self.target.file).name not in text:
            return f"a refusal that does not name the file{place}: {text[:100]}"
        return ""


class Watch:
    """Python's audit events while an input is read. seen: what must not be; written: whether the folder has changed."""

    def __init__(self, lab: Lab):
        self.folder, self.secrets = f"{lab.folder.resolve()}/", (str(lab.secret.resolve()), "/etc/passwd")
        self.on, self.written = False, False
        self.seen: list[str] = []
        sys.addaudithook(self.hook)

    def begin(self) -> None:
        self.on, self.written, self.seen = True, False, []

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike):
                self._opened(os.path.realpath(os.fsdecode(path)), flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        elif event in CHANGING:
            if event == "os.mkdir" and os.path.realpath(os.fsdecode(arguments[0])) == self.folder.rstrip("/"):
                return  # it is there, so this changes nothing
            for path in arguments:
                if isinstance(path, str | bytes | os.PathLike):
                    self._opened(os.path.realpath(os.fsdecode(path)), True)
        elif event in FORBIDDEN:
            self._note(f"{event} {str(arguments)[:80]}")

    def _opened(self, path: str, writes: int) -> None:
        if writes and path != os.devnull:
            self.written = True
            # a link itself lies in the folder, although what it names does not
            if not path.startswith(self.folder):
                self._note("writes outside of its folder")
        elif path in self.secrets:
            self._note("reads what a name in the file leads to, outside of its folder")

    def _note(self, what: str) -> None:
        self.seen.append(what)
        raise PermissionError(what)


def _work(lab: Lab, first: int, count: int, pipe: int) -> None:
    """In a process of its own, which ends here: a line of JSON an input."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):  # libraries in C have much to say of broken files
        os.dup2(null, stream)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _too_long)
    warnings.simplefilter("ignore")
    watch = Watch(lab)
    code = 0
    try:
        for number in range(first, count):
            verdict = lab.judge(watch, content_of(lab.target, lab.seed, number))
            if not number and not verdict[1]:
                verdict = *verdict[:2], verdict[2] or "the valid file is refused"
            os.write(pipe, json.dumps(verdict).encode() + b"\n")
    except OSError:  # who reads the pipe is gone
        code = 3
    os._exit(code)


def _too_long(_: int, __: FrameType | None) -> None:
    raise TooLong


if __name__ == "__main__":
    sys.exit(main())
