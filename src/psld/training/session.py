"""Everything that changes during training, in one place: what a checkpoint saves and a resume restores.

A step is a pure function of the weights, the optimizer's state, the global random state (dropout) and (seed, step,
rank): times and noise come from a generator made anew for every step. So a run that is resumed repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from psld.data.order import derived_seed
from psld.predictions import ScoreModel
from psld.training.checkpoint import Checkpoint, CheckpointError
from psld.training.ema import ExponentialMovingAverage
from psld.training.settings import TrainingSettings

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["Loss", "Session"]

Loss = Callable[[ScoreModel, Tensor, Tensor, torch.Generator], Tensor]
"""loss(model, x0 (B, *data), t (B,) float64 on the CPU, generator) -> (B,), one number a sample."""


class Session:
    """Weights, their average and the optimizer, and how one step changes them.

    Args:
        fabric: launched.
        network: the plain network; set up on the device here.
        score_model: makes a ScoreModel of the network as it was set up.
        loss: one number a sample.
        settings, seed: of the run.
        images: length of the training set, on which the order depends.

    Attributes:
        step: completed steps.
        seconds: training time of the completed steps that are on disk.
        rate: the learning rate of the last step.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: nn.Module,
        score_model: Callable[[nn.Module], ScoreModel],
        loss: Loss,
        settings: TrainingSettings,
        seed: int,
        images: int,
    ):
        self.step, self.seconds, self.rate = 0, 0.0, 0.0
        self.network = network
        self._fabric, self._loss, self._settings, self._seed = fabric, loss, settings, seed
        self._images = images
        network.train()
        self._optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        self._wrapped, self._stepper = fabric.setup(network, self._optimizer)
        self._model = score_model(self._wrapped)
        self._average = ExponentialMovingAverage(network, settings.ema_decay)
        torch.manual_seed(derived_seed(seed, "global", fabric.global_rank))

    def losses(self, x0: Float[Tensor, "B *data"]) -> Float[Tensor, " B"]:
        """The losses of the coming step."""
        settings, rank = self._settings, self._fabric.global_rank
        generator = torch.Generator().manual_seed(derived_seed(self._seed, "noise", self.step, rank))
        uniform = torch.rand(len(x0), generator=generator, dtype=torch.float64)
        t = settings.t_min + (self._model.process.T - settings.t_min) * uniform
        return self._loss(self._model, self._fabric.to_device(x0), t, generator)

    @torch.no_grad()
    def rehearse(self, x0: Float[Tensor, "B *data"]) -> None:
        """Computes a loss and changes nothing, so that what does not fit together fails before anything is written.

        Raises:
            ValueError: the data or the loss is not finite, or the loss is not one number a sample.
        """
        if not bool(x0.isfinite().all()):
            raise ValueError("the data hold NaN or infinity (seen in the first batch): remove or repair such images.")
        device = self._fabric.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            losses = self.losses(x0)
        if losses.shape != x0.shape[:1]:
            raise ValueError(f"the loss must be one number a sample, ({len(x0)},): got shape {tuple(losses.shape)}.")
        if not bool(losses.isfinite().all()):
            raise ValueError(
                "the loss of the first batch is not finite before any training: check network, process and t_min."
            )

    def advance(self, x0: Float[Tensor, "B *data"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """One optimizer step. Returns (mean loss, gradient norm before clipping), on the device, not waited for."""
        settings = self._settings
        self.rate = settings.learning_rate_at(self.step + 1)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        loss = self.losses(x0).mean()
        self._fabric.backward(loss)
        norm = self._fabric.clip_gradients(
            self._wrapped, self._stepper, max_norm=settings.clip_norm, error_if_nonfinite=False
        )
        self._stepper.step()
        self._stepper.zero_grad()
        self._average.update()
        self.step += 1
        assert norm is not None  # it is, whenever max_norm is given
        return loss.detach(), norm

    def weights(self) -> list[Tensor]:
        return list(self.network.parameters())

    def checkpoint(self, config_text: str) -> Checkpoint:
        """The present state. Every rank must call it; all get the same."""
        random = {"cpu": torch.get_rng_state()}
        if self._fabric.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self._fabric.device)
        random = {name: self._of_all_ranks(state) for name, state in random.items()}
        state = {
            "optimizer": self._optimizer.state_dict(),
            "random": random,
            "seconds": self.seconds,
            "repeats": self._repeats(),
        }
        return Checkpoint(self.step, self.network.state_dict(), self._average.state_dict(), state, config_text)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint.

        Raises:
            ValueError: it comes from a run whose steps this one would not repeat.
            CheckpointError: it is of another network or lacks something.
        """
        state, rank, device = checkpoint.state, self._fabric.global_rank, self._fabric.device
        try:
            for name, now in self._repeats().items():
                then = state["repeats"].get(name, now)  # runs begun before images were recorded lack them
                if then != now:
                    raise ValueError(f"the run was started with {name}={then}, not {now}: resume with that.")
            self.network.load_state_dict(dict(checkpoint.weights))
            self._average.load_state_dict(checkpoint.averages)
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = checkpoint.step, state["seconds"]
            # Clones: torch 2.13 crashes on a state that is a view with an offset.
            torch.set_rng_state(state["random"]["cpu"][rank].clone())
            if device.type == "cuda" and "cuda" in state["random"]:
                torch.cuda.set_rng_state(state["random"]["cuda"][rank].clone(), device)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint of step {checkpoint.step} does not fit this network: {error}"
            ) from error
        self._average.updates = checkpoint.step

    def _of_all_ranks(self, state: Tensor) -> Tensor:
        """(ranks, …)"""
        if self._fabric.world_size == 1:
            return state[None]
        gathered = self._fabric.all_gather(state)
        assert isinstance(gathered, Tensor)
        return gathered.cpu()

    def _repeats(self) -> dict[str, int]:
        """What must stay as it was for a resumed run to repeat the uninterrupted one."""
        return {
            "seed": self._seed,
            "batch_size": self._settings.batch_size,
            "devices": self._fabric.world_size,
            "images": self._images,
        }
