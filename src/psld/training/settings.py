"""How to train: numbers of a run, checked before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from psld.specs.arguments import checked_fields, one_of, positive, whole

__all__ = ["Checkpoints", "Precision", "Strategy", "Times", "TrainingSettings"]

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""float32 throughout, or the network under bfloat16 or float16 autocast; the latter with loss scaling."""

Strategy = Literal["auto", "ddp", "fsdp"]
"""The network whole in every process, or in slices. "auto" is "ddp" for several processes."""

Checkpoints = Literal["whole", "sharded"]
"""Gathered and written by the first process, or each process's slices in files of its own."""

Times = Literal["uniform", "stratified"]
"""Independent times; or u, u + 1/B, u + 2/B, … (mod 1) with one u for all B images of a step, each still uniform."""

PUBLISHED_DECAY = 0.9999

MOST_IMAGES, MOST_DEVICES, MOST_NODES, MOST_WORKERS = 10_000_000, 2**10, 2**16, 2**10
"""Of one machine, of one run, and of one device: far more than there are."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a training run. The defaults that can be are those of the published runs.

    Attributes:
        steps: optimizer steps of the whole run.
        batch_size: images a step, all devices and all parts of it together.
        accumulate: parts that the batch of a device is cut into, run one after the other: memory for time. The step is
            that of the whole batch.
        learning_rate: of Adam, after warm-up.
        warmup_steps: the learning rate rises linearly over these; 0 for none.
        clip_norm: gradients are scaled down to this norm; math.inf for none.
        ema_decay: of the average of the weights, a step; ramps up as min(decay, (1 + n) / (10 + n)) after n steps.
            0.9999 unless a half-life is given.
        ema_half_life: instead, the number of images after which a weight counts half: decay = ½^(batch_size / it). The
            same for every batch size.
        t_min: times are in [t_min, T].
        times: "uniform", or "stratified" over the batch of a step, which lowers the variance of the gradient.
        label_dropout: None: the network is told no labels. Else the probability with which an image's label is replaced
            by the null class, for classifier-free guidance: 0.1 is typical, 0 never. Classifiers leave it None.
        precision: "32-true", "bf16-mixed" or "16-mixed", whose loss scaling skips the steps whose gradients overflow.
        compile: torch.compile the network. Takes minutes at the start, and pays on GPUs.
        accelerator: as in Lightning Fabric: "auto", "cpu", "cuda" (or "gpu"), "mps".
        devices, nodes: how many on each machine, and machines. Under torchrun and SLURM, what was started there.
        strategy: "ddp": every process has the network; "fsdp": each a slice of it; "auto".
        checkpoints: "whole": the first process gathers and writes them; "sharded": each process writes the slices it
            holds, so that none needs memory for the whole. "sharded" needs strategy "fsdp".
        log_every: steps between rows of metrics.csv, which is also how soon a loss that is not finite is noticed.
        checkpoint_every: steps between checkpoints; there is one at the end in any case.
        keep_checkpoints: how many of the newest are kept.
        num_workers: processes that read data; 0 reads in the training process.
        max_seconds: the run stops cleanly, and counts as done, after this training time, resumed parts included.
        tensorboard: write RUN/tensorboard too.
        progress: a progress bar, on terminals only.

    Raises:
        ValueError: a field of another type, a number out of its range, or an unknown precision.
    """

    steps: int
    batch_size: int = 128
    accumulate: int = 1
    learning_rate: float = 2e-4
    warmup_steps: int = 5000
    clip_norm: float = 1.0
    ema_decay: float | None = None
    ema_half_life: float | None = None
    t_min: float = 1e-5
    times: Times = "uniform"
    label_dropout: float | None = None
    precision: Precision = "32-true"
    compile: bool = False
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Strategy = "auto"
    checkpoints: Checkpoints = "whole"
    log_every: int = 100
    checkpoint_every: int = 5000
    keep_checkpoints: int = 2
    num_workers: int = 0
    max_seconds: float | None = None
    tensorboard: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        checked_fields(self)
        for name in ("steps", "accumulate", "log_every", "checkpoint_every", "keep_checkpoints"):
            whole(name, getattr(self, name))
        bounds = {"batch_size": MOST_IMAGES, "devices": MOST_DEVICES, "nodes": MOST_NODES}
        for name, most in bounds.items():
            whole(name, getattr(self, name), most=most)
        whole("warmup_steps", self.warmup_steps, least=0)
        whole("num_workers", self.num_workers, least=0, most=MOST_WORKERS)
        positive("learning_rate", self.learning_rate)
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be positive: got {self.clip_norm}. For no clipping: .inf")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1): got {self.ema_decay}.")
        if self.ema_half_life is not None:
            positive("ema_half_life", self.ema_half_life)
        if self.ema_decay is not None and self.ema_half_life is not None:
            raise ValueError(
                f"ema_decay={self.ema_decay} and ema_half_life={self.ema_half_life} say the same thing twice: "
                "give one, and null (None) for the other."
            )
        if not 0 < self.t_min < 1:
            raise ValueError(f"t_min must be in (0, 1): got {self.t_min}. At t = 0 there is no noise to learn from.")
        if self.label_dropout is not None and not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout must be in [0, 1], or None for no labels: got {self.label_dropout}.")
        one_of("accelerator", self.accelerator, ("auto", "cpu", "cuda", "gpu", "mps"))
        if self.checkpoints == "sharded" and self.strategy != "fsdp":
            raise ValueError(
                f"checkpoints='sharded' needs strategy='fsdp': got {self.strategy!r}, under which every process holds "
                "the whole network and there is nothing to shard."
            )
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds must be positive, or None for no limit: got {self.max_seconds}.")
        if self.batch_size % self.ranks:
            raise ValueError(
                f"batch_size is of all devices together: {self.batch_size} does not divide among {self.ranks}."
            )
        if self.batch_size // self.ranks % self.accumulate:
            raise ValueError(
                f"a device's {self.batch_size // self.ranks} images of a step do not divide into "
                f"accumulate={self.accumulate} parts."
            )

    @property
    def ranks(self) -> int:
        """Processes, one a device."""
        return self.devices * self.nodes

    @property
    def decay(self) -> float:
        """Of the average of the weights, a step."""
        if self.ema_half_life is not None:
            return 0.5 ** (self.batch_size / self.ema_half_life)
        return PUBLISHED_DECAY if self.ema_decay is None else self.ema_decay

    def learning_rate_at(self, step: int) -> float:
        """Of step `step`, counted from 1: linear from learning_rate / warmup_steps, then constant."""
        return self.learning_rate * min(1.0, step / max(self.warmup_steps, 1))
