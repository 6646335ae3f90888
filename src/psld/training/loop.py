"""The training loop (Lightning Fabric for devices and precision; everything else in sight).

Everything that can be refused is refused before anything is written. Then: one step after the other, a row in the log
every `log_every`, a checkpoint every `checkpoint_every` and at the last step: the end, the time limit, or a signal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from psld.data.base import ImageData
from psld.data.loading import TrainingData, loader
from psld.data.order import ShuffledBatches
from psld.distributed import every_rank, first_problem, launch
from psld.files import locked
from psld.model import ScoreModel
from psld.specs.arguments import checked, seed_number, shown
from psld.spectrum import SPECTRUM, Spectrum
from psld.training.checkpoint import Checkpoint, CheckpointError, has_checkpoint, latest_checkpoint
from psld.training.description import asks_for_labels, described_run, read_description, require_same_run, written
from psld.training.logs import MetricsRow, RunLog
from psld.training.reading import read_checkpoint, read_slices
from psld.training.run_folder import push_aside, require_startable, settle
from psld.training.session import Loss, Session
from psld.training.settings import TrainingSettings
from psld.training.stopping import StopSignals, ignore_stop_signals
from psld.training.throughput import Slowdown, warn_of_fighting_threads
from psld.training.writing import require_space, write_checkpoint, write_slices

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["TrainingData", "train"]


@checked
def train(
    model: ScoreModel,
    data: TrainingData,
    loss: Loss,
    settings: TrainingSettings,
    run: str | Path,
    *,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Trains the network of a model in place, and leaves a folder that `psld.load` and every command take.

    The folder gets checkpoints/, each with a config.yaml made from these objects, spectrum.safetensors with the mean
    and the principal components of the data, metrics.csv and tensorboard/.

    Args:
        model: the network that is trained, its process, and what it predicts. The network records how it was made
            (`psld.Specified`), and is trained on the device that `settings` name. With "fsdp" it is left in slices:
            load the run to use it. With settings.label_dropout it is told label= too, and has `classes`, as many as the
            data, as has a classifier.
        data: the training set, x₀ without a batch dimension: any `psld.data.ImageData`, or tensors of one shape.
        loss: loss(model, x0, t, generators) -> (B,), with one generator a sample (psld.noise.standard_normal draws);
            with settings.label_dropout it gets label= as well, (B,) int64, and so does one that asks for labels
            (psld.losses.CrossEntropy, which trains a classifier).
        settings: numbers of the run.
        run: its folder.
        seed: of order, times, noise and dropout. Not of the initial weights: those are the network's.
        resume: continue from the latest checkpoint, bit for bit as if the run had not stopped (on a GPU as far as its
            kernels are deterministic).
        overwrite: replace the run that is there. It is kept until the new one has its first checkpoint.

    Returns:
        The folder of the last checkpoint.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: the run cannot start, or is not the one to resume; nothing was
            written.
        FolderInUseError: another process trains in that folder; the message names it. Nothing was written.
        SpecError: the network does not record how it was made, so nobody could load it; nothing was written.
        CheckpointError: the checkpoint to resume from is broken; the message names one that is not.
        TrainingDiverged: a loss, gradient or weight was not finite; the last good checkpoint is kept.
        OSError: the disk is full, or too full to start; earlier checkpoints are whole.
        SystemExit: 143 after SIGTERM, 130 after SIGINT; a checkpoint was written.
    """
    run = Path(run)
    seed_number("seed", seed)
    if isinstance(data, str) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise ValueError(f"data must be a data set of psld.data, or tensors of one shape: got {shown(data)}.")
    fabric = launch(settings.accelerator, settings.devices, settings.nodes, settings.strategy, settings.precision)
    labels = settings.label_dropout is not None or asks_for_labels(loss)
    with locked(run, "a training run", fabric):
        checkpoint = _admitted(run, resume, overwrite, fabric, model, data, loss, settings)
        description = described_run(model, data, loss, settings, seed)
        if checkpoint is not None:
            require_same_run(read_description(checkpoint.config_text), description)
        session = Session(fabric, model, loss, settings, seed, len(data))
        if checkpoint is not None:
            session.restore(checkpoint)
        if _is_done(session, settings):
            return latest_checkpoint(run)
        ranks = (fabric.global_rank, fabric.world_size)
        batches = ShuffledBatches(len(data), settings.batch_size, seed, session.step, settings.steps, *ranks)
        first = _first_batch(data, batches, session.step, labels)
        session.rehearse(*first)
        if fabric.device.type == "cpu" and fabric.world_size == 1:
            warn_of_fighting_threads(lambda: session.rehearse(*first))
        with StopSignals() as signals, _in_place_of(run, overwrite, fabric):
            source = _loader(data, batches, settings.num_workers, labels, fabric)
            if not asks_for_labels(loss):
                _measure(data, run, fabric)
            last = _train_on(session, source, fabric, settings, run, written(description), signals)
    if signals.received:
        raise SystemExit(128 + signals.received)
    return last


def _admitted(
    run: Path,
    resume: bool,
    overwrite: bool,
    fabric: Fabric,
    model: ScoreModel,
    data: TrainingData,
    loss: Loss,
    settings: TrainingSettings,
) -> Checkpoint | None:
    """Refuses what cannot be started, before anything is written. Returns the checkpoint to resume from."""
    if fabric.is_global_zero:
        settle(run)
    fabric.barrier()
    require_startable(run, resume, overwrite)
    if len(data) < 1:
        raise ValueError("there are no training data: data must be one image or more, and has length 0.")
    if not settings.t_min < model.process.T:
        raise ValueError(
            f"t_min must be below the horizon of the process: got {settings.t_min} and T = {model.process.T}."
        )
    network = model.network
    if not isinstance(network, nn.Module):
        raise ValueError(f"only a torch.nn.Module can be trained: got a model of {type(network).__name__}.")
    _require_labels(model.classes, data, loss, settings.label_dropout)
    require_space(run, _checkpoint_size(network))
    return _read_together(latest_checkpoint(run), fabric, settings) if resume else None


def _read_together(folder: Path, fabric: Fabric, settings: TrainingSettings) -> Checkpoint:
    """The checkpoint, or of one in slices this rank's, on every rank; or an error on every rank."""
    checkpoint, problem = None, ""
    try:
        if settings.strategy == "fsdp":
            checkpoint = read_slices(folder, fabric.global_rank, fabric.world_size)
        checkpoint = checkpoint or read_checkpoint(folder)
    except CheckpointError as error:
        problem = str(error)
    problem = first_problem(fabric, problem)
    if checkpoint is None or problem:
        raise CheckpointError(problem)
    return checkpoint


def _require_labels(classes: int | None, data: TrainingData, loss: Loss, dropout: float | None) -> None:
    """That data, network, loss and settings agree on whether there are labels, and how many."""
    if asks_for_labels(loss):
        reason = type(loss).__name__
        if dropout:
            raise ValueError(f"{reason} needs every label: leave training.label_dropout={dropout} out.")
    elif dropout is None:
        if classes is not None:
            raise ValueError(
                f"the network has classes={classes} and would be told no labels: give training.label_dropout (0.1 is "
                "typical, 0 drops none), or a network without classes."
            )
        return
    else:
        reason = f"label_dropout={dropout}"
    if not isinstance(data, ImageData) or data.labels is None:
        raise ValueError(
            f"{reason} needs labels, and the {type(data).__name__} data have none: give data with labels"
            f"{'' if dropout is None else ', or leave label_dropout out'}."
        )
    found = len(data.classes) or int(data.labels.max()) + 1
    if classes != found:
        raise ValueError(
            f"the data have {found} classes and the network has classes={classes}: with {reason} they must agree."
        )


@contextmanager
def _in_place_of(run: Path, overwrite: bool, fabric: Fabric) -> Iterator[None]:
    """The old run stands aside while the new one has no checkpoint, and is put back if it never gets one."""
    fabric.barrier()  # every rank has looked at the folder before one of them changes it
    if overwrite and fabric.is_global_zero:
        push_aside(run)
    try:
        yield
    finally:
        if fabric.is_global_zero:
            settle(run)


def _train_on(
    session: Session,
    loader: Iterable[Tensor] | Iterable[tuple[Tensor, Tensor]],
    fabric: Fabric,
    settings: TrainingSettings,
    run: Path,
    config_text: str,
    signals: StopSignals,
) -> Path:
    """From the session's step to the end, the time limit or a signal. Returns the last checkpoint."""
    interval, logged = session.interval, session.step - len(session.interval)
    clock, agreement = _Clock(session.seconds, session.step), _Agreement(fabric, session.step)
    slowdown = Slowdown(settings.batch_size * session.step, session.seconds)
    with _log(run, session.step, logged, fabric, settings) as log:
        for batch in loader:
            x0, label = (batch, None) if isinstance(batch, Tensor) else batch
            interval.add(session.step + 1, *session.advance(x0, label))
            session.seconds = clock.seconds()
            log_now = session.step % settings.log_every == 0
            stop = agreement.stops(session, settings, signals)
            save_now = stop or session.step % settings.checkpoint_every == 0
            if log_now or save_now:
                interval.check(session.weights(), _advice(run, settings))
            if log_now or stop:
                loss, norm = interval.means()
                images = settings.batch_size * session.step
                speed = settings.batch_size * clock.steps_per_second(session.step)
                log.write(MetricsRow(session.step, images, loss, norm, session.rate, speed, session.seconds))
                slowdown.see(images, session.seconds)
            if log_now:  # a row of a stop that comes between is replaced when the run goes on
                interval.close()
            log.advance()
            if save_now:
                _save(session, fabric, settings, run, config_text)
            if stop:
                break
    return latest_checkpoint(run)


def _measure(data: TrainingData, run: Path, fabric: Fabric) -> None:
    """Writes the spectrum of the data beside the checkpoints, for the grids that samples are drawn on."""
    if not fabric.is_global_zero or (run / SPECTRUM).is_file():
        return
    with torch.random.fork_rng(devices=[]):  # data that draw as they are read draw the same afterwards
        try:
            spectrum = Spectrum.measure(data)
        except ValueError:  # of one image, or of images that are all the same, there is none
            return
    run.mkdir(parents=True, exist_ok=True)
    spectrum.save(run)


def _save(session: Session, fabric: Fabric, settings: TrainingSettings, run: Path, config_text: str) -> None:
    checkpoint, keep = session.checkpoint(config_text), settings.keep_checkpoints
    if checkpoint.sliced:
        ranks = (fabric.global_rank, fabric.world_size)
        write_slices(run, checkpoint, keep, *ranks, partial(first_problem, fabric))
    elif fabric.is_global_zero:
        write_checkpoint(run, checkpoint, keep)
    if fabric.is_global_zero:
        settle(run)
    fabric.barrier()


def _is_done(session: Session, settings: TrainingSettings) -> bool:
    out_of_time = settings.max_seconds is not None and session.seconds >= settings.max_seconds
    return out_of_time or session.step >= settings.steps


class _Agreement:
    """Whether a step is the last one. Several ranks compare clocks and signals about once a second, not every step.

    Args:
        fabric: of the ranks.
        step: completed steps.
    """

    def __init__(self, fabric: Fabric, step: int):
        self._fabric = fabric
        self._compared, self._next = (step, time.monotonic()), step + 1

    def stops(self, session: Session, settings: TrainingSettings, signals: StopSignals) -> bool:
        """The same answer on every rank; `signals` hold what any of them received."""
        if session.step >= settings.steps:
            return True
        stop = bool(signals.received) or _is_done(session, settings)
        if self._fabric.world_size == 1:
            return stop
        if session.step < self._next:
            return False
        (old_step, then), now = self._compared, time.monotonic()
        wait = min(1000.0, max(1.0, (session.step - old_step) / max(now - then, 1e-3)))  # steps in a second
        mine = torch.tensor([float(stop), float(signals.received), wait], device=self._fabric.device)
        agreed, received, wait = every_rank(self._fabric, mine, "max").tolist()
        self._compared, self._next = (session.step, now), session.step + int(wait)
        signals.received = int(received)
        return bool(agreed)


class _Clock:
    """Training time, and speed since the last time it was asked for."""

    def __init__(self, seconds: float, step: int):
        self._origin = time.monotonic() - seconds
        self._since = (step, seconds)

    def seconds(self) -> float:
        return time.monotonic() - self._origin

    def steps_per_second(self, step: int) -> float:
        now, (old_step, old_seconds) = self.seconds(), self._since
        self._since = (step, now)
        return (step - old_step) / max(now - old_seconds, 1e-9)


# -- setting up --------------------------------------------------------------------------------------------------------


def _loader(
    data: TrainingData, batches: ShuffledBatches, workers: int, labels: bool, fabric: Fabric
) -> Iterable[Tensor] | Iterable[tuple[Tensor, Tensor]]:
    pinned = fabric.device.type == "cuda"
    if labels and isinstance(data, ImageData):
        return loader(data, batches, workers, pin_memory=pinned, labels=True, worker_init=ignore_stop_signals)
    return loader(data, batches, workers, pin_memory=pinned, worker_init=ignore_stop_signals)


def _first_batch(data: TrainingData, batches: ShuffledBatches, step: int, labels: bool) -> tuple[Tensor, Tensor | None]:
    """Images of a step, and their labels where the loss gets them."""
    indices = batches.batch(step)
    images = default_collate([data[index] for index in indices])
    if labels and isinstance(data, ImageData) and data.labels is not None:
        return images, data.labels[torch.tensor(indices)]
    return images, None


def _checkpoint_size(network: nn.Module) -> int:
    """Bytes: weights, their average and Adam's two moments, and a little for the rest."""
    return 4 * sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()) + 1_000_000


class _Silence:
    """The log of the ranks that keep none."""

    def advance(self) -> None: ...

    def write(self, row: MetricsRow) -> None: ...


@contextmanager
def _log(
    run: Path, start_step: int, logged: int, fabric: Fabric, settings: TrainingSettings
) -> Iterator[RunLog | _Silence]:
    if not fabric.is_global_zero:
        yield _Silence()
        return
    run.mkdir(parents=True, exist_ok=True)
    numbers = (start_step, logged, settings.steps, settings.batch_size)
    with RunLog(run, *numbers, settings.tensorboard, settings.progress) as log:
        yield log


def _advice(run: Path, settings: TrainingSettings) -> str:
    kept = (
        f"The last good checkpoint is {latest_checkpoint(run)}"
        if has_checkpoint(run)
        else "There was no checkpoint yet"
    )
    return (
        f"{kept}. Try a lower learning_rate (now {settings.learning_rate}), more warmup_steps "
        f"(now {settings.warmup_steps}){', or precision 32-true' if settings.precision != '32-true' else ''}."
    )
