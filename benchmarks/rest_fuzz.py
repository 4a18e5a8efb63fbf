"""Does the server answer as its own description says, whatever it is asked? Requests made of `ruac serve`'s OpenAPI by Schemathesis.

    python benchmarks/rest_fuzz.py            # ten minutes
    python benchmarks/rest_fuzz.py --quick    # under 50 s

A server with a tiny random model is started, an image uploaded, and every operation asked with requests that fit the description and
such that do not; half of those about an image name the one that is there, and then the prompts that fit lie in it. A failure is an
answer of 5xx, one whose status, type or body is not described, one that does not come within TIMEOUT seconds, and the end of the
server; an operation that was only ever refused was not tested. Prints one JSON object as its last line; exit code 1 when anything
failed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httpx
import models
from fuzz_seeds import colours, saved
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.openapi import from_url
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ruac.machine import describe_machine

SECONDS, QUICK, TIMEOUT = 600.0, 20.0, 30.0
WIDTH, HEIGHT = 80, 48  # of the image
EXAMPLES = 25  # of an operation in a row
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:g} seconds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        models.tiny().save_pretrained(Path(name) / "model")
        words = ["-m", "ruac", "serve", "--port", "0", "--model", f"{name}/model"]
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        found = re.search(r"http://\S+(?=;)", process.stdout.readline())
        if found is None:
            raise SystemExit(f"no server: {process.communicate()[1]}")
        try:
            asked, failures = ask(found[0], QUICK if options.quick else options.seconds, options.seed)
        finally:
            dead = process.poll() is not None
            process.terminate()
            told = process.communicate(timeout=60)[1].strip()
    if dead or told:
        failures[f"the server ended or complained: {told[-300:]}"] += 1
    for words_of, times in failures.most_common(20):
        print(f"{times:>5} x {words_of}")
    done = {place for place in asked if re.search(r" 2\d\d$", place)}
    never = sorted({place.rpartition(" ")[0] for place in asked} - {place.rpartition(" ")[0] for place in done})
    figures = {
        "requests": asked.total(),
        "failed": failures.total(),
        "never_done": never,
        "statuses": dict(sorted(asked.items())),
    }
    missed = [name for name in ("failed", "never_done") if figures[name]]
    print(
        json.dumps(
            {
                "figures": figures,
                "targets": {"failed": 0, "never_done": []},
                "missed": missed,
                "quick": options.quick,
                "machine": describe_machine(),
            }
        )
    )
    return 1 if missed else 0


def ask(url: str, seconds: float, first: int) -> tuple[Counter[str], Counter[str]]:
    """Answers by operation and status, and failures in words."""
    asked: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    content = saved(colours(HEIGHT, WIDTH), "PNG")
    uploaded = httpx.post(f"{url}/images", content=content, headers={"Content-Type": "image/png"}, timeout=TIMEOUT)
    image = uploaded.raise_for_status().json()["id"]
    schema = from_url(f"{url}/openapi.json")
    operations: list[Any] = [cast(Any, found).ok() for found in schema.get_all_operations()]
    deadline = time.monotonic() + seconds
    number = first
    while time.monotonic() < deadline:
        for operation in operations:
            for mode in MODES:
                number += 1

                @seed(number)
                @settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
                )
                @given(case=operation.as_strategy(generation_mode=mode))
                def one(case: Any) -> None:
                    if time.monotonic() > deadline:
                        return
                    place = f"{case.method} {case.path}"
                    if case.path_parameters and asked.total() % 2:
                        case.path_parameters = dict.fromkeys(case.path_parameters, image)
                        if case.meta.generation.mode is GenerationMode.POSITIVE and case.path.endswith("/predict"):
                            case.body["prompts"] = [_in_the_image(prompt) for prompt in case.body["prompts"]]
                    try:
                        answer = case.call(timeout=TIMEOUT)
                        asked[f"{place} {answer.status_code}"] += 1
                        case.validate_response(answer, checks=CHECKS)
                    except FailureGroup as group:
                        for failure in group.exceptions:
                            failures[f"{place}: {type(failure).__name__}: {' '.join(str(failure).split())[:300]}"] += 1
                    except Exception as error:  # noqa: BLE001  whatever it is, the client did not get a described answer
                        failures[f"{place}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"] += 1

                with suppress(Unsatisfiable):  # nothing that is asked there can be wrong
                    one()
    return asked, failures


def _in_the_image(prompt: dict[str, Any]) -> dict[str, Any]:
    """What no description can say: points and boxes that lie in the image, a label a point, and something that is asked at all."""
    points = [[x % (WIDTH - 1), y % (HEIGHT - 1)] for x, y in prompt.get("point_coords") or []]
    x0, y0, x1, y1 = prompt.get("box") or [0, 0, 0, 0]
    left, top = min(x0, x1) % (WIDTH // 2), min(y0, y1) % (HEIGHT // 2)
    box = (
        [left, top, left + 1 + abs(x1 - x0) % (WIDTH // 3), top + 1 + abs(y1 - y0) % (HEIGHT // 3)] if prompt.get("box") else None
    )
    labels = [1 - number % 2 for number in range(len(points))]
    return {"point_coords": points, "point_labels": labels, "box": box} if points else {"box": box or [1, 1, 40, 30]}


if __name__ == "__main__":
    sys.exit(main())
