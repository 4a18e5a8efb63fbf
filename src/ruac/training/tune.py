"""`ruac tune`: which settings of a recipe make the best model, by training many, the hopeless ones not to the end (Optuna)."""

from __future__ import annotations

import csv
import io
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml

from ruac.data.folder import FolderSet
from ruac.errors import RoomError, WorkError, one_line
from ruac.evaluate.protocol import Protocol
from ruac.loading import read
from ruac.model import RuacModel
from ruac.training import loop
from ruac.training.checkpoint import FILE, Position
from ruac.training.config import TrainConfig
from ruac.training.sources import open_sources
from ruac.training.space import Range, default_space, searched, varied
from ruac.training.trial_score import score, shifted_pictures
from ruac.training.variant import PLAIN
from ruac.writing import only_writer, require_folder, write_whole

try:
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
    from optuna.trial import TrialState
except ModuleNotFoundError:
    raise ValueError("ruac tune needs Optuna: pip install 'ruac[train]'") from None

# seconds: a worker gives a sign of life so often, and its trial is another's after so long without one
HEARTBEAT, GRACE = 20, 60
RETRIES = 20  # of a trial whose worker was killed


@dataclass(frozen=True)
class TuneConfig:
    """A search.

    train: the recipe whose settings are varied; its own folder is where the best recipe will write; out: folder of the search, with a
    folder a trial, the study, trials.csv and best.yaml; trials: how many, by all workers together; space: the range of each
    setting; storage: URL of a database that several machines reach, such as postgresql://..., or none for a file in `out`; study:
    its name there.

    images: held-out pictures of each set; shifts: other styles of each; clicks: after how many to judge; max_objects: of a picture;
    aurc_weight: how much of J&F a unit of AURC is worth; validations: times a trial is judged, evenly, the last at its end; startup:
    trials before one may be stopped for being worse than the median at the same step.
    """

    train: TrainConfig
    out: Path = Path("runs/tune")
    trials: int = 40
    space: dict[str, Range] = field(default_factory=default_space)
    storage: str | None = None
    study: str = "ruac"
    images: int = 8
    shifts: int = 2
    clicks: list[int] = field(default_factory=lambda: [1, 3])
    max_objects: int = 3
    aurc_weight: float = 1.0
    validations: int = 5
    startup: int = 5

    def __post_init__(self) -> None:
        for name in ("trials", "images", "max_objects", "validations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; it must be at least 1")

    @property
    def steps(self) -> int:
        """Of a trial, over all stages."""
        return sum(stage.steps for stage in self.train.stages)

    def judged_at(self) -> list[int]:
        """After how many steps a trial is judged."""
        return sorted({math.ceil(self.steps * n / self.validations) for n in range(1, self.validations + 1)})


def tune(config: TuneConfig) -> None:
    """Search for the settings of a recipe with the best J&F less AURC on held-out pictures of its own source, randomly shifted.

    Each trial trains the recipe with other settings; one that is worse than the median of the others at the same step is stopped.
    Writes best.yaml, for `ruac train --config`, and trials.csv. Run the same command again to go on after an interruption; run it in
    several processes, or on several machines with --storage and one --out, to share the work.

    Example: ruac tune --train configs/nano.yaml --out runs/tune --trials 40
    """
    with warnings.catch_warnings():
        # of Optuna's, about signs of life: pinned, and tested here
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            _tune(config)
        except (StorageInternalError, AssertionError) as error:
            # Optuna asserts that it could write down the end of a trial, also when it could not
            first = error if isinstance(error, StorageInternalError) else error.__context__
            if not isinstance(first, StorageInternalError):
                raise
            database = "--storage" if config.storage else database_of(config)
            raise RoomError(
                f"{database}: {_reason(first.__cause__ or first)}; see to it and run the same command again"
            ) from None


def _tune(config: TuneConfig) -> None:
    require_folder(config.out)
    space = searched(config.space, config.train.stages)
    sets = open_sources(config.train.data)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings are tracebacks
    with only_writer(config.out):  # of several at once, one makes the tables
        study = open_study(config)
    run = _objective(config, space, sets)
    while len(_finished(study)) < config.trials:
        fail_stale_trials(study)
        try:
            study.optimize(run, n_trials=1)
        except RoomError:
            raise
        except WorkError as error:
            # one that diverges is a bad trial, not the end of the search
            print(f"ruac: a trial has failed, others go on: {one_line(error)}", file=sys.stderr)
        _write(config, study)
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        errors = [trial.user_attrs.get("error", "stopped early") for trial in _finished(study)]
        raise WorkError(f"{config.out}: no trial came to its end; the last: {errors[-1]}")
    _write(config, study)
    best = study.best_trial
    settings = ", ".join(f"{name} {value:.3g}" for name, value in best.params.items())
    print(f"Best of {len(_finished(study))} trials: number {best.number}, J&F {best.user_attrs['j_and_f']:.4f}, ", end="")
    print(f"AURC {best.user_attrs['aurc']:.4f}; {settings}\nRecipe: {config.out / 'best.yaml'}")


def open_study(config: TuneConfig) -> optuna.Study:
    """The study in `out` or at `storage`, made if need be. Trials whose worker is gone are taken up again.

    Raises ValueError for a database that cannot be opened, RoomError where that is the file in `out`.
    """
    url = config.storage or f"sqlite:///{database_of(config)}"
    try:
        storage = RDBStorage(url, heartbeat_interval=HEARTBEAT, grace_period=GRACE, heartbeat_stale_trial_callback=_again())
        study = optuna.create_study(storage=storage, study_name=config.study, direction="maximize", load_if_exists=True)
    except Exception as error:  # noqa: BLE001  every database has exceptions of its own
        if config.storage is None:
            raise RoomError(f"{database_of(config)}: cannot be opened ({_reason(error)})") from None
        raise ValueError(f"--storage {url}: cannot be opened ({one_line(error)})") from None
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=config.startup)
    return study


def database_of(config: TuneConfig) -> Path:
    """The file in `out`, where there is no other storage."""
    return (config.out / "study.db").resolve()


def _reason(error: BaseException) -> str:
    """What the database said, without the statement that it said it of."""
    return one_line(getattr(error, "orig", error))


def settings_of(config: TuneConfig, values: dict[str, float], out: Path) -> TrainConfig:
    """The recipe with these values of what is searched."""
    return replace(config.train, out=out, stages=[varied(stage, values) for stage in config.train.stages])


def _objective(config: TuneConfig, space: dict[str, Range], sets: list[FolderSet]) -> Callable[[optuna.Trial], float]:
    pictures = shifted_pictures(sets, config.images, config.shifts, config.train.seed)
    protocol = Protocol(tuple(config.clicks), config.max_objects, config.train.seed)
    judged_at = config.judged_at()
    before = [sum(stage.steps for stage in config.train.stages[:n]) for n in range(len(config.train.stages) + 1)]

    def objective(trial: optuna.Trial) -> float:
        # workers, and a search that goes on, must neither draw the same settings again nor wait for each other's results
        trial.study.sampler = optuna.samplers.TPESampler(seed=config.train.seed + trial.number, constant_liar=True)
        values = {name: trial.suggest_float(name, r.low, r.high, log=True) for name, r in space.items()}
        folder = config.out / "trials" / str(_first_number(trial))
        last: list[float] = []

        def judge(model: RuacModel) -> float:
            found = score(model, pictures, protocol)
            trial.set_user_attr("j_and_f", found.j_and_f)
            trial.set_user_attr("aurc", found.aurc)
            last[:] = [found.total(config.aurc_weight)]
            return last[0]

        def watch(at: Position, averaged: Callable[[], RuacModel]) -> None:
            step = before[at.stage] + at.step
            if step in judged_at:
                trial.report(judge(averaged()), step)
                if step < config.steps and trial.should_prune():
                    raise optuna.TrialPruned

        try:
            written = loop.train(settings_of(config, values, folder), PLAIN, watch)
        except (KeyboardInterrupt, RoomError):
            _again()(trial.study, _stored(trial))
            raise
        except WorkError as error:
            trial.set_user_attr("error", one_line(error))
            raise
        except optuna.TrialPruned:
            (folder / FILE).unlink(missing_ok=True)
            raise
        # killed between its last step and here, it was not judged again
        value = last[0] if last else judge(read(written).eval())
        (folder / FILE).unlink(missing_ok=True)
        return value

    return objective


def _first_number(trial: optuna.Trial) -> int:
    """The trial's number or, of one that is taken up again, the number of the one that was killed: its checkpoint is there."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(_stored(trial))
    return trial.number if first is None else first


def _again() -> RetryHeartbeatStaleTrialCallback:
    """Puts a trial that was interrupted back in line, with its settings and what it had reported."""
    return RetryHeartbeatStaleTrialCallback(max_retry=RETRIES, inherit_intermediate_values=True)


def _stored(trial: optuna.Trial) -> optuna.trial.FrozenTrial:
    return next(each for each in trial.study.get_trials(deepcopy=False) if each.number == trial.number)


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that came to an end by themselves; those whose worker was killed have failed without an error."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in trials if trial.state != TrialState.FAIL or "error" in trial.user_attrs]


def _write(config: TuneConfig, study: optuna.Study) -> None:
    """trials.csv, and best.yaml once a trial is complete."""
    finished = _finished(study)
    names = sorted({name for trial in finished for name in trial.params})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", "state", "value", "j_and_f", "aurc", *names])
    for trial in finished:
        measured = [trial.user_attrs.get(name, "") for name in ("j_and_f", "aurc")]
        value = "" if trial.value is None else trial.value
        table.writerow(
            [trial.number, trial.state.name.lower(), value, *measured, *(trial.params.get(name, "") for name in names)]
        )
    write_whole(config.out / "trials.csv", text.getvalue().encode())
    if any(trial.state == TrialState.COMPLETE for trial in finished):
        best = asdict(settings_of(config, study.best_trial.params, config.train.out))
        plain = {**best, "data": [str(folder) for folder in best["data"]], "out": str(best["out"])}
        write_whole(config.out / "best.yaml", yaml.safe_dump(plain, sort_keys=False).encode())
