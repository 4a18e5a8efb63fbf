"""The engine of this machine: several images at a time, each worked on by one lane from the file to its results.

A CPU does more so than with all its cores on one image: reading, decoding, drawing and compressing, which keep one core busy, take
place while another lane encodes. On an accelerator, too, it works on while masks are measured.
"""

from __future__ import annotations

import copy
import queue
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch

from ruac.label.make import Job, Made, Maker

MOST = 8  # lanes of a CPU unless asked for more: each holds the features and the maps of an image
ON_ACCELERATOR = 2  # one measures and draws while the other encodes


def in_lanes(maker: Maker, jobs: Sequence[Job], workers: int | None) -> Iterator[Made]:
    """What becomes of each, in the order of the jobs. workers: lanes; if None, as many as torch has threads but at most MOST.

    Each lane is one thread of torch's, whose number is as before when all is done: sums depend in their last bit on how many share
    them, and results must not depend on the machine's cores.
    """
    threads = torch.get_num_threads()
    lanes = workers or (min(threads, MOST) if maker.predictor.model.device.type == "cpu" else ON_ACCELERATOR)
    free: queue.SimpleQueue[Maker] = queue.SimpleQueue()
    for _ in range(lanes):
        # the same weights, but each its own image
        free.put(replace(maker, predictor=copy.copy(maker.predictor)))

    def work(job: Job) -> Made:
        mine = free.get()
        try:
            return mine.make(job)
        finally:
            free.put(mine)

    torch.set_num_threads(1)  # before the pool, whose threads take it over
    pool = ThreadPoolExecutor(lanes, "lane")
    waiting: deque[Future[Made]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > 2 * lanes:  # so many results are held at the most
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
