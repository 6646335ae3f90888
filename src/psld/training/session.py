"""Everything that changes during training, in one place: what a checkpoint saves and a resume restores.

A step is a pure function of the weights, the optimizer's state, the global random state (dropout) and (seed, step):
the time and the noise of an image, and whether its label is dropped, depend on (seed, step, its position in the batch
of all ranks). So a run that is resumed repeats bit for bit, and one that is spread over more devices or cut in parts
takes the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from psld.data.order import derived_seed
from psld.distributed import every_rank, gathered, loss_scaler, of_all_ranks, own_part, part_like, slice_like, whole
from psld.model import ScoreModel
from psld.training.checkpoint import Checkpoint, CheckpointError
from psld.training.ema import ExponentialMovingAverage
from psld.training.health import Interval
from psld.training.settings import TrainingSettings

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["Loss", "Session"]

Loss = Callable[..., Tensor]
"""loss(model, x0 (B, *data), t (B,) float64 on the CPU, generators) -> (B,), one number a sample.

There is one generator a sample; `psld.noise.standard_normal(shape, generators)` draws with them. With label_dropout the
loss gets label=, (B,) int64, as well, and hands it to the model. One with `asks_for_labels = True` gets every label.
"""


@contextmanager
def _compiling() -> Iterator[None]:
    """Says which setting to leave out if torch.compile fails, which it does at the first call of the network."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise ValueError(f"training.compile is on, and torch.compile fails: {error}\nLeave it out to train.") from error


class Session:
    """Weights, their average and the optimizer, and how one step changes them.

    Args:
        fabric: launched.
        model: with the plain network, which is set up on the device here.
        loss: one number a sample.
        settings, seed: of the run.
        length: items in the data set.

    Attributes:
        step: completed steps.
        seconds: training time of the completed steps that are on disk.
        rate: the learning rate of the last step.
        interval: losses and gradient norms that are in no row of the log yet.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: ScoreModel,
        loss: Loss,
        settings: TrainingSettings,
        seed: int,
        length: int,
    ):
        self.step, self.seconds, self.rate = 0, 0.0, 0.0
        network = self.network = cast(nn.Module, model.network)
        self._fabric, self._loss, self._settings, self._seed = fabric, loss, settings, seed
        self._length = length
        self.interval = Interval(lambda values: every_rank(fabric, values, "mean"))
        self._null = model.classes
        network.train()
        runnable = cast(nn.Module, torch.compile(network)) if settings.compile else network
        self._wrapped = fabric.setup_module(runnable)  # first: it may slice the parameters that the others keep
        self._optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        self._stepper = cast(torch.optim.Optimizer, fabric.setup_optimizers(self._optimizer))
        self._scaler = loss_scaler(fabric)
        self._model = model.around(self._wrapped)
        self._average = ExponentialMovingAverage(network, settings.decay)
        self._generators = [torch.Generator() for _ in range(settings.batch_size // fabric.world_size)]
        torch.manual_seed(derived_seed(seed, "global", fabric.global_rank))

    def _draws(self) -> tuple[Float[Tensor, " B"], list[torch.Generator], Bool[Tensor, " B"]]:
        """Times, generators and dropped labels of this rank's images in the coming step."""
        settings, count = self._settings, self._settings.batch_size
        step_generator = torch.Generator().manual_seed(derived_seed(self._seed, "noise", self.step))
        if settings.times == "stratified":
            offset = torch.rand(1, generator=step_generator, dtype=torch.float64)
            uniform = (offset + torch.arange(count, dtype=torch.float64) / count) % 1.0
        else:
            uniform = torch.rand(count, generator=step_generator, dtype=torch.float64)
        seeds = torch.randint(2**62, (count,), generator=step_generator)
        # after what unlabelled runs draw, so that labels change neither times nor noise
        dropped = torch.rand(count, generator=step_generator, dtype=torch.float64) < (settings.label_dropout or 0.0)
        own = slice(self._fabric.global_rank, None, self._fabric.world_size)  # as ShuffledBatches deals them out
        for generator, image_seed in zip(self._generators, seeds[own].tolist(), strict=True):
            generator.manual_seed(image_seed)
        t = settings.t_min + (self._model.process.T - settings.t_min) * uniform[own]
        return t, self._generators, dropped[own]

    def _parts(
        self, x0: Float[Tensor, "B *data"], label: Int64[Tensor, " B"] | None
    ) -> Iterator[tuple[Tensor, Tensor, list[torch.Generator], dict[str, Tensor]]]:
        """This rank's images with times, generators and labels, some of them dropped, in `accumulate` parts."""
        t, generators, dropped = self._draws()
        if label is not None:
            assert self._null is not None  # the loop has seen to it
            label = label.masked_fill(dropped, self._null)
        size = len(x0) // self._settings.accumulate
        for first in range(0, len(x0), size):
            part = slice(first, first + size)
            condition = {} if label is None else {"label": self._fabric.to_device(label[part])}
            yield self._fabric.to_device(x0[part]), t[part], generators[part], condition

    @torch.no_grad()
    def rehearse(self, x0: Float[Tensor, "B *data"], label: Int64[Tensor, " B"] | None = None) -> None:
        """Computes a loss and changes nothing, so that what does not fit together fails before anything is written.

        Raises:
            ValueError: the data or the loss is not finite, the loss is not one number a sample, or the network cannot
                be compiled.
        """
        if not bool(x0.isfinite().all()):
            raise ValueError("the data hold NaN or infinity (seen in the first batch): remove or repair such images.")
        device = self._fabric.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _compiling():
            image, t, generators, condition = next(self._parts(x0, label))
            losses = self._loss(self._model, image, t, generators, **condition)
        if losses.shape != t.shape:
            raise ValueError(f"the loss must be one number a sample, ({len(t)},): got shape {tuple(losses.shape)}.")
        if not bool(losses.isfinite().all()):
            raise ValueError(
                "the loss of the first batch is not finite before any training: check network, process and t_min."
            )

    def advance(
        self, x0: Float[Tensor, "B *data"], label: Int64[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """One optimizer step.

        Under loss scaling a step whose gradients overflow is skipped: weights and moments stay, the scale is halved,
        and the step counts as one, with its images, learning rate and turn of the average.

        Returns:
            (mean loss, gradient norm before clipping), on the device, not waited for. No norm of a step that was
            skipped, unless the scale was 1 or less: then it is the gradient itself that is not finite.
        """
        settings, scale = self._settings, self._loss_scale()
        self.rate = settings.learning_rate_at(self.step + 1)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        total = torch.zeros((), device=self._fabric.device)
        for number, (images, t, generators, condition) in enumerate(self._parts(x0, label), start=1):
            # gradients are summed over the parts, and averaged over the ranks after the last one
            with self._fabric.no_backward_sync(self._wrapped, enabled=number < settings.accumulate):
                loss = self._loss(self._model, images, t, generators, **condition).sum() / len(x0)
                self._fabric.backward(loss)
            total += loss.detach()
        norm = self._fabric.clip_gradients(
            self._wrapped, self._stepper, max_norm=settings.clip_norm, error_if_nonfinite=False
        )
        self._stepper.step()
        self._stepper.zero_grad()
        self._average.update()
        self.step += 1
        assert norm is not None  # it is, whenever max_norm is given
        skipped = self._loss_scale() < scale
        return total, None if skipped and scale > 1 else gathered(norm)

    def _loss_scale(self) -> float:
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def weights(self) -> list[Tensor]:
        """What this rank holds of them."""
        return [own_part(parameter.detach()) for parameter in self.network.parameters()]

    def checkpoint(self, config_text: str) -> Checkpoint:
        """The present state. Every rank must call it.

        Returns:
            With checkpoints "sharded", what this rank holds: not copied, so to be written before the next step. Else
            the first rank gets everything, and only that one is to be used.
        """
        random = {"cpu": torch.get_rng_state()}
        if self._fabric.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self._fabric.device)
        random = {name: of_all_ranks(self._fabric, state) for name, state in random.items()}
        sliced = self._settings.checkpoints == "sharded"

        def taken(tensor: Tensor) -> Tensor:
            return tensor.detach() if sliced else whole(tensor, self._fabric.is_global_zero)

        weights, averages = (
            {name: taken(tensor) for name, tensor in state.items()}
            for state in (self.network.state_dict(), self._average.state_dict())
        )
        optimizer = self._optimizer.state_dict()
        moments = {
            index: {name: taken(value) for name, value in entries.items()}
            for index, entries in optimizer["state"].items()
        }
        state = {
            "optimizer": optimizer | {"state": moments},
            "random": random,
            "seconds": self.seconds,
            "repeats": self._repeats(),
            "interval": self.interval.state(lambda values: of_all_ranks(self._fabric, values)),
        }
        if self._scaler is not None:
            state["scaler"] = self._scaler.state_dict()
        return Checkpoint(self.step, weights, averages, state, config_text, sliced)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint.

        Raises:
            ValueError: it comes from a run whose steps this one would not repeat.
            CheckpointError: it is of another network or lacks something.
        """
        state, rank, device = checkpoint.state, self._fabric.global_rank, self._fabric.device
        try:
            for name, now in self._repeats().items():
                before = state["repeats"].get(name, now)  # older checkpoints do not say all of them
                if before != now:
                    raise ValueError(f"the run was started with {name}={before}, not {now}: resume with that.")
            own, place = self.network.state_dict(), slice_like if checkpoint.sliced else part_like
            _require_same_types(own, checkpoint.weights, checkpoint.averages)
            self.network.load_state_dict({name: place(t, own[name]) for name, t in checkpoint.weights.items()})
            self._average.load_state_dict({name: place(t, own[name]) for name, t in checkpoint.averages.items()})
            self._optimizer.load_state_dict(self._placed_moments(state["optimizer"], place))
            if self._scaler is not None and "scaler" in state:  # there is none if the precision was another
                self._scaler.load_state_dict(state["scaler"])
            self.step, self.seconds = checkpoint.step, state["seconds"]
            self.interval.restore(state.get("interval", {}), rank, device)  # older checkpoints have none
            # Clones: torch 2.13 crashes on a state that is a view with an offset.
            torch.set_rng_state(state["random"]["cpu"][rank].clone())
            if device.type == "cuda" and "cuda" in state["random"]:
                torch.cuda.set_rng_state(state["random"]["cuda"][rank].clone(), device)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint of step {checkpoint.step} does not fit this network: {error}"
            ) from error
        self._average.updates = checkpoint.step

    def _placed_moments(self, optimizer: dict[str, Any], place: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
        """The optimizer's state, its moments placed as the parameters are; they come in the same order."""
        parameters = list(self.network.parameters())
        moments = {
            index: {
                name: place(value, parameters[index]) if value.ndim else value  # a scalar: Adam's count of steps
                for name, value in entries.items()
            }
            for index, entries in optimizer["state"].items()
        }
        return optimizer | {"state": moments}

    def _repeats(self) -> dict[str, int | float | str | None]:
        """What must stay as it was for a resumed run to repeat the uninterrupted one."""
        settings = self._settings
        return {
            "seed": self._seed,
            "batch_size": settings.batch_size,
            "accumulate": settings.accumulate,
            "times": settings.times,
            "label_dropout": settings.label_dropout,
            "devices": self._fabric.world_size,
            "images": self._length,
        }


def _require_same_types(own: Mapping[str, Tensor], *saved: Mapping[str, Tensor]) -> None:
    """Loading would convert them, and nobody would notice."""
    for name, tensor in (item for tensors in saved for item in tensors.items()):
        if name in own and tensor.dtype != own[name].dtype:
            raise RuntimeError(f"{name} is {tensor.dtype} in the checkpoint and {own[name].dtype} here.")
