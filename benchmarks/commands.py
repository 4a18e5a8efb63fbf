"""What benchmarks share that train and evaluate through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from ruac.cli import main
from ruac.heads import make_head
from ruac.loading import load

PROCESSES = 2


def run(*words: object) -> None:
    """A command of ruac in this process. Raises SystemExit when it fails."""
    code = main([str(word) for word in words])
    if code:
        sys.exit(code)


def evaluate(*words: object) -> None:
    """`ruac eval` with these words, by a process a core. Raises CalledProcessError when it fails."""
    launch = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", PROCESSES, "-m", "ruac", "eval")
    every = [str(word) for word in (*launch, *words)]
    subprocess.run(every, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def model_without_head(folder: Path) -> Path:
    """The embedded model with its head as before training, saved there unless it is."""
    if not folder.is_dir():
        model = load("nano")
        torch.manual_seed(0)
        model.head = make_head("exact", model.family.channels, model.family.token_width)
        model.config.head_trained, model.config.quality = False, None
        model.save_pretrained(folder)
    return folder
