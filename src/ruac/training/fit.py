"""Fitting a head to a frozen Segment Anything model, on answers that were made beforehand: a step is as long as the head needs.

Every batch is a function of (seed, step), and what is known is written at every check, so that a fit that was killed goes on and ends
with the very same numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ruac.errors import one_line
from ruac.heads import ExactHead, PlainHead
from ruac.losses import likelihood
from ruac.training.answers import AnswerFiles, Answers, Picture
from ruac.training.branch import of_chosen, weights
from ruac.training.config import Stage
from ruac.writing import write_whole


@dataclass(frozen=True)
class FitConfig:
    """stage: steps, pictures a step, rate and weights of the losses, as in a recipe; clip: of the gradient's norm; check_every: steps
    after which the head is judged on the pictures that are watched; patience: stop after so many checks without a new best one."""

    stage: Stage = field(default_factory=lambda: Stage(steps=200, images=2, objects=3, rate=3e-3, train="head", warmup=20))
    seed: int = 0
    clip: float = 0.3
    check_every: int = 20
    patience: int = 6

    def fingerprint(self, answers: str, fitted: Sequence[Picture], watched: Sequence[Picture]) -> str:
        """What a state on disk must share with a fit to be its beginning; answers: their `AnswerFiles.key`."""
        pictures = [[(picture.name, picture.content) for picture in part] for part in (fitted, watched)]
        return json.dumps({"config": asdict(self), "answers": answers, "pictures": pictures}, sort_keys=True)


@dataclass(frozen=True)
class Progress:
    """Of a fit. step: the next one; nll, plain_nll: negative log-likelihood of the watched pictures, in nats, by the best head so far
    and by the plain logits; best_step: after how many steps it was that; finished: nothing is left to do."""

    step: int = 0
    nll: float = math.inf
    plain_nll: float = math.inf
    best_step: int = 0
    finished: bool = False


@dataclass(frozen=True)
class StateFile:
    """Where a fit stands, on disk. fingerprint: of the fit, see `FitConfig`."""

    path: Path
    fingerprint: str

    def progress(self) -> Progress:
        """Raises ValueError when the file is damaged or of another fit."""
        if not self.path.is_file():
            return Progress()
        try:
            with safe_open(self.path, "pt") as file:
                described = file.metadata() or {}
            if described.get("fingerprint") != self.fingerprint:
                raise ValueError("belongs to a fit with other settings, weights or pictures")
            return Progress(**json.loads(described["progress"]))
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._refusal(error) from None

    def write(self, progress: Progress, head: ExactHead, best: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        names = {id(parameter): name for name, parameter in head.named_parameters()}
        tensors = {f"head.{name}": value for name, value in head.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        for parameter, moments in optimizer.state.items():
            tensors |= {f"optimizer.{key}/{names[id(parameter)]}": value for key, value in moments.items()}
        metadata = {"fingerprint": self.fingerprint, "progress": json.dumps(asdict(progress))}
        write_whole(self.path, save({name: value.contiguous() for name, value in tensors.items()}, metadata=metadata))

    def load(self, head: ExactHead, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Fill the head and the optimiser in place; returns the best head's tensors. Raises ValueError when the file is damaged."""
        parts: dict[str, dict[str, Tensor]] = {"head": {}, "best": {}, "optimizer": {}}
        parameters = dict(head.named_parameters())
        try:
            with safe_open(self.path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  it is no mapping
                    part, _, rest = name.partition(".")
                    parts[part][rest] = file.get_tensor(name)
            for part in ("best", "head"):  # both must fit, the second is to stay
                head.load_state_dict(parts[part])
            for name, value in parts["optimizer"].items():
                key, _, parameter = name.partition("/")
                weight = parameters[parameter]
                optimizer.state[weight][key] = value.reshape(weight.shape).to(weight.device) if value.ndim else value
        except (SafetensorError, RuntimeError, KeyError) as error:
            raise self._refusal(error) from None
        return parts["best"]

    def _refusal(self, error: Exception) -> ValueError:
        return ValueError(f"{self.path}: {one_line(error)}; choose another --out, or remove this file to start again")


def fit(
    head: ExactHead,
    files: AnswerFiles,
    fitted: Sequence[Picture],
    watched: Sequence[Picture],
    config: FitConfig,
    state: StateFile,
    tell: Callable[[], None] = lambda: None,
) -> Progress:
    """Fit the head in place, from where `state` stands; it ends as the one that made the labels of the watched pictures likeliest.

    fitted, watched: pictures whose answers are in `files`; tell: called after every step. Raises ValueError as
    `StateFile.progress` and `fitting_step` do.
    """
    optimizer, progress = make_optimizer(head, config), state.progress()
    if progress.step:
        best = state.load(head, optimizer)
    else:
        best = _copy(head)
        nll, plain_nll = watched_nll(head, files, watched)
        progress = replace(progress, nll=nll, plain_nll=plain_nll)
    while not progress.finished:
        start = progress.step
        stop = min(start + config.check_every, config.stage.steps)
        for step in range(start, stop):
            chosen = batch_of(len(fitted), step, config.stage.images, config.seed)
            batch = Answers.together([_answers(files, fitted[i]) for i in chosen])
            fitting_step(head, optimizer, batch, step, config)
            tell()
        nll, _ = watched_nll(head, files, watched)
        if nll < progress.nll:
            best = _copy(head)
            progress = replace(progress, nll=nll, best_step=stop)
        given_up = stop - progress.best_step >= config.patience * config.check_every
        progress = replace(progress, step=stop, finished=given_up or stop == config.stage.steps)
        state.write(progress, head, best, optimizer)
    head.load_state_dict(best)
    head.requires_grad_(False)
    return progress


def fitting_step(head: ExactHead, optimizer: torch.optim.Optimizer, batch: Answers, step: int, config: FitConfig) -> float:
    """One step on these answers; returns their negative log-likelihood. Raises ValueError when the gradient is no number."""
    rngs = [np.random.default_rng((config.seed, step, i)) for i in range(len(batch.truth))]
    optimizer.zero_grad(set_to_none=True)
    terms = of_chosen(head, batch.decoded, batch.truth, batch.valid, config.stage, rngs)
    counts = weights(config.stage, attacked=False, done=step / config.stage.steps)
    torch.stack([counts[name] * values.mean() for name, values in terms.items()]).sum().backward()
    norm = torch.nn.utils.clip_grad_norm_(head.parameters(), config.clip)
    if not torch.isfinite(norm):
        raise ValueError(f"the gradient of step {step} is not a number: lower --rate")
    for group in optimizer.param_groups:
        group["lr"] = config.stage.rate * config.stage.factor(step)
    optimizer.step()
    return terms["nll"].mean().item()


def make_optimizer(head: ExactHead, config: FitConfig) -> torch.optim.AdamW:
    head.requires_grad_(True)
    return torch.optim.AdamW(head.parameters(), lr=config.stage.rate, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)


def batch_of(pictures: int, step: int, count: int, seed: int) -> list[int]:
    """The `count` pictures that a step learns from: all of them in turn, in a new random order every time round."""
    chosen = []
    for place in range(step * count, (step + 1) * count):
        turn, at = divmod(place, pictures)
        chosen.append(int(np.random.default_rng((seed, turn)).permutation(pictures)[at]))
    return chosen


@torch.no_grad()
def watched_nll(head: ExactHead, files: AnswerFiles, watched: Sequence[Picture]) -> tuple[float, float]:
    """Negative log-likelihood of the labels in nats by the head and by the plain logits, every picture counting the same."""
    found, plain = [], []
    for picture in watched:
        answers = _answers(files, picture)
        size = (answers.truth.shape[-2], answers.truth.shape[-1])
        for which, nlls in ((head, found), (PlainHead(), plain)):
            logit = which(answers.decoded).grown(size).scaled_mean()
            nlls.append(likelihood(logit, answers.truth, answers.valid).item())
    return math.fsum(found) / len(found), math.fsum(plain) / len(plain)


def _copy(head: ExactHead) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in head.state_dict().items()}


def _answers(files: AnswerFiles, picture: Picture) -> Answers:
    """Raises ValueError when they have gone since they were made."""
    answers = files.read(picture)
    if answers is None:
        raise ValueError(f"{files.path(picture)}: damaged or removed while it was needed; run the same command again")
    return answers
