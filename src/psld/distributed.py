"""Devices: how processes find each other, how a network is shared among them, and how tensors get whole again.

Processes are started by Fabric (one a device), by torchrun or by SLURM; Fabric sees which. With "ddp" each has the
whole network and gradients are averaged. With "fsdp" each has a slice of every parameter, of its gradient, its moments
and its average (torch's fully_shard), and the slices are gathered where they are needed. What is element-wise, Adam
and the moving average, works on slices as it does on whole tensors.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from psld.specs.arguments import device_name

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.plugins import Precision as FabricPrecision
    from lightning.fabric.strategies.strategy import Strategy as FabricStrategy
    from torch.distributed.device_mesh import DeviceMesh

    from psld.training.settings import Precision, Strategy

__all__ = [
    "available_device",
    "every_rank",
    "first_problem",
    "gathered",
    "launch",
    "lists_of_all_ranks",
    "loss_scaler",
    "of_all_ranks",
    "own_part",
    "part_like",
    "slice_like",
    "whole",
]


def available_device(name: str) -> torch.device:
    """The device of that name, which must be there: "cpu", "cuda", "cuda:1", "mps" ….

    Raises:
        ValueError: no device has such a name, or this machine has none of it.
    """
    device = device_name("device", name)
    try:
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # as each backend pleases
        raise ValueError(f"this machine has no device {name!r} that torch can use: cpu is always there.") from error
    return device


def launch(
    accelerator: str, devices: int, nodes: int, strategy: Strategy = "auto", precision: Precision = "32-true"
) -> Fabric:
    """The processes of a run, connected. Returns in each of them. Arguments as in `TrainingSettings`.

    Those that this one starts end when it ends, whatever ends it.

    Raises:
        ValueError: the accelerator is unknown or not on this machine, or has fewer devices; or torchrun or SLURM
            started another number of processes than devices × nodes.
    """
    from lightning.fabric import Fabric

    _require_devices(accelerator, devices)
    _require_started(devices, nodes)
    if devices * nodes > 1:
        _end_with_the_first()
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=_sliced(devices * nodes) if strategy == "fsdp" else strategy,
        plugins=None if precision == "32-true" else _autocast(precision, accelerator),
    )
    fabric.launch()
    return fabric


FIRST = "PSLD_FIRST_PROCESS"
"""Variable of the environment that tells the processes which Fabric starts the number of the one that started them."""


def _end_with_the_first() -> None:
    """In a process that Fabric started: ends as soon as the one that started it has, of SIGKILL for example.

    Otherwise it would go on drawing into a folder that is no longer locked, or wait in vain for the first.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        os.environ[FIRST] = str(os.getpid())
        return
    first = os.environ.get(FIRST)
    if first is None:  # started by torchrun or SLURM, which look after their own
        return

    def watch() -> None:
        while os.getppid() == int(first):
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, name="end with the first process", daemon=True).start()


def _require_devices(accelerator: str, devices: int) -> None:
    """Processes on a CPU may outnumber its cores, up to eight; other devices are as many as there are."""
    there = {
        "cpu": max(8, os.cpu_count() or 1),
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if accelerator not in ("auto", "gpu", *there):
        raise ValueError(f"accelerator must be auto, cpu, cuda, gpu or mps: got {accelerator!r}.")
    found = [name for name in ("cuda", "mps", "cpu") if there[name]]
    used = {"auto": found[0], "gpu": next((name for name in found if name != "cpu"), "cuda")}.get(
        accelerator, accelerator
    )
    if not there[used]:
        raise ValueError(f"accelerator {accelerator!r} is not on this machine, which has {' and '.join(found)}.")
    if devices > there[used]:
        raise ValueError(f"devices must be at most {there[used]} with accelerator {used!r} here: got {devices}.")


def _autocast(precision: Literal["bf16-mixed", "16-mixed"], accelerator: str) -> FabricPrecision:
    """16 bits where autocast computes, with loss scaling for float16.

    Fabric's own would also round what the network is called with, the times and the state of which a preconditioned
    network passes a part through: its error at small σ is then that of bfloat16. And its float16 becomes bfloat16 on a
    CPU, and is refused with slices.
    """
    from lightning.fabric.plugins import MixedPrecision

    class Autocast(MixedPrecision):
        def convert_input(self, data: Any) -> Any:
            return data

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    first = next(device for device, there in available.items() if there)
    return Autocast(precision, device=first if accelerator in ("auto", "gpu") else accelerator)


def loss_scaler(fabric: Fabric) -> GradScaler | None:
    """What scales the loss, if the precision needs that."""
    return getattr(fabric.strategy.precision, "scaler", None)


def _sliced(ranks: int) -> FabricStrategy:
    from lightning.fabric.strategies.model_parallel import ModelParallelStrategy

    return ModelParallelStrategy(_shard, data_parallel_size=ranks, tensor_parallel_size=1)


def _require_started(devices: int, nodes: int) -> None:
    """A single-process run of many processes would write the same folder from all of them."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    for environment, name, variable in (
        (TorchElasticEnvironment, "torchrun", "WORLD_SIZE"),
        (SLURMEnvironment, "SLURM", "SLURM_NTASKS"),
    ):
        if environment.detect():
            started = int(os.environ.get(variable, 1))
            if started != devices * nodes:
                raise ValueError(
                    f"{name} started {started} processes, and the settings say devices={devices} on each of "
                    f"nodes={nodes}: set devices and nodes to what was started."
                )
            return


def _shard(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Each block is gathered when it runs and dropped after it; what is in no block is gathered with the root."""
    from torch.distributed.fsdp import fully_shard

    # in-place changes of a network's output would be lost; there are none here
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    data_parallel = mesh["data_parallel"]
    _same_everywhere(network.to(mesh.device_type))
    for module in reversed(list(network.modules())):  # inner blocks before those around them
        for block in module.children() if isinstance(module, nn.ModuleList) else ():
            if not isinstance(block, nn.ModuleList | nn.ModuleDict) and any(True for _ in block.parameters()):
                fully_shard(block, mesh=data_parallel)
    fully_shard(network, mesh=data_parallel, reshard_after_forward=True)
    return network


@torch.no_grad()
def _same_everywhere(network: nn.Module) -> None:
    """All start from the weights of the first rank, as under DDP."""
    for tensor in (*network.parameters(), *network.buffers()):
        torch.distributed.broadcast(tensor.detach(), src=0)


# -- tensors that are, or are not, in slices ---------------------------------------------------------------------------


def own_part(tensor: Tensor) -> Tensor:
    """The slice that this process holds; the tensor itself if it is whole. No copy."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """The whole tensor, on the device. Of a sliced one every rank must ask."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor, keep: bool) -> Tensor:
    """The whole tensor, on the CPU. Of a sliced one every rank must ask; those that do not `keep` it get nothing."""
    full = gathered(tensor.detach())
    return full.cpu() if keep else torch.empty(0)


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, cut and placed as `like` is. Of a sliced one every rank must ask, in the same order."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def slice_like(own: Tensor, like: Tensor) -> Tensor:
    """The slice that this process holds of a tensor, placed as `like` is. No process needs to hear of the others.

    Raises:
        RuntimeError: it is not of the shape of this process's slice of `like`.
    """
    from torch.distributed.tensor import DTensor

    if own.shape != own_part(like).shape:
        raise RuntimeError(f"a slice is {tuple(own.shape)}, and this process holds {tuple(own_part(like).shape)}.")
    if not isinstance(like, DTensor):
        return own
    return DTensor.from_local(
        own.to(like.device), like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def every_rank(fabric: Fabric, tensor: Tensor, combine: str) -> Tensor:
    """Element-wise "mean" or "max" over the ranks; all of them get the same."""
    if fabric.world_size == 1:
        return tensor
    combined = fabric.all_reduce(tensor, reduce_op=combine)
    assert isinstance(combined, Tensor)
    return combined


def of_all_ranks(fabric: Fabric, tensor: Tensor) -> Tensor:
    """(ranks, …) on the CPU, of a tensor of the same shape on every rank."""
    if fabric.world_size == 1:
        return tensor.cpu()[None]
    own = tensor.to(fabric.device)
    received = [torch.empty_like(own) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(received, own)
    return torch.stack(received).cpu()


def first_problem(fabric: Fabric, problem: str) -> str:
    """What went wrong on the lowest rank that has something to say, for all of them; "" if nothing did, anywhere."""
    if fabric.world_size == 1:
        return problem
    problems = [""] * fabric.world_size
    torch.distributed.all_gather_object(problems, problem)
    return next(filter(None, problems), "")


def lists_of_all_ranks(fabric: Fabric, own: list[int]) -> list[int]:
    """The lists of all ranks, one after the other, of any lengths; all of them get the same."""
    if fabric.world_size == 1:
        return own
    received: list[list[int]] = [[]] * fabric.world_size
    torch.distributed.all_gather_object(received, own)
    return [item for part in received for item in part]
