"""Several processes, and a batch in parts, take the same steps as one process with the whole batch."""

import socket
from pathlib import Path

import pytest
import torch
from torch import nn

from psld.training import latest_checkpoint
from psld.training.checkpoint import Checkpoint
from psld.training.reading import read_checkpoint
from training.small_run import launched, noise_error, small_network, small_run

STEPS = 9
TOLERANCE = 5e-5  # sums in another order, through Adam, which magnifies them where gradients vanish
KINDS = {
    "uniform": {"times": "uniform"},
    "stratified": {"times": "stratified"},
    "labelled": {"times": "stratified", "label_dropout": 0.5},
}


def network_here(**options) -> nn.Module:
    return small_network(dropout=0.0, classes=10 if "label_dropout" in options else None)


def run_here(run: Path, **options) -> Checkpoint:
    return read_checkpoint(small_run(run, network=network_here(**options), steps=STEPS, **options))


def run_as_processes(run: Path, *options: str, python: tuple[str, ...] = ()) -> Checkpoint:
    process = launched(run, "--steps", str(STEPS), "--dropout", "0", *options, python=python)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    return read_checkpoint(latest_checkpoint(run))


def require_close(got: Checkpoint, want: Checkpoint, start: dict[str, torch.Tensor] | None = None) -> None:
    start = small_network(dropout=0.0).state_dict() if start is None else start
    assert got.step == want.step
    assert max(float((want.weights[name] - start[name]).abs().max()) for name in start) > 100 * TOLERANCE
    for tensors, others in ((got.weights, want.weights), (got.averages, want.averages)):
        assert tensors.keys() == others.keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, others[name], rtol=0, atol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")
    moments = [checkpoint.state["optimizer"]["state"] for checkpoint in (got, want)]
    assert moments[0].keys() == moments[1].keys()
    for index, entries in moments[0].items():
        torch.testing.assert_close(entries["exp_avg"], moments[1][index]["exp_avg"], rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> dict[str, Checkpoint]:
    folder = tmp_path_factory.mktemp("runs")
    return {kind: run_here(folder / kind, **options) for kind, options in KINDS.items()}


@pytest.mark.parametrize("times", ["uniform", "stratified"])
def test_accumulation_takes_the_same_steps(one, tmp_path, times):
    require_close(run_here(tmp_path / "parts", times=times, accumulate=4), one[times])


@pytest.mark.parametrize(
    ("strategy", "accumulate", "kind"),
    [
        ("ddp", "2", "labelled"),  # one that every run of the tests includes, so with all that may depend on positions
        pytest.param("ddp", "2", "stratified", marks=pytest.mark.slow),
        pytest.param("ddp", "1", "uniform", marks=pytest.mark.slow),
        pytest.param("fsdp", "1", "uniform", marks=pytest.mark.slow),
        pytest.param("fsdp", "2", "stratified", marks=pytest.mark.slow),
    ],
)
def test_two_processes_take_the_same_steps(one, tmp_path, strategy, accumulate, kind):
    """Which labels are dropped goes by the position in the batch of all processes, as times and noise do."""
    own = [word for name, value in KINDS[kind].items() for word in (f"--{name}", str(value))]
    options = ("--devices", "2", "--strategy", strategy, "--accumulate", accumulate, *own)
    require_close(run_as_processes(tmp_path / "two", *options), one[kind], network_here(**KINDS[kind]).state_dict())


@pytest.mark.slow
def test_a_network_of_several_levels_in_slices_takes_the_same_steps(tmp_path):
    """Its levels hand activations to one another, past the modules that gather and drop their weights."""
    two = run_as_processes(tmp_path / "two", "--devices", "2", "--strategy", "fsdp", "--levels", "3")
    one = read_checkpoint(small_run(tmp_path / "one", network=small_network(0.0, levels=3), steps=STEPS))
    require_close(two, one, small_network(0.0, levels=3).state_dict())


@pytest.mark.slow
def test_processes_started_by_torchrun_take_the_same_steps(tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    two = run_as_processes(tmp_path / "two", "--devices", "2", python=torchrun)
    require_close(two, run_here(tmp_path / "one"))


@pytest.mark.slow
def test_processes_on_two_slurm_nodes_take_the_same_steps(tmp_path):
    """What srun sets, for two nodes with one task each, which are both this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    job = dict(
        SLURM_JOB_ID="4711", SLURM_JOB_NAME="psld", SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="1", SLURM_NNODES="2"
    )
    options = ("--steps", str(STEPS), "--dropout", "0", "--nodes", "2")
    tasks = [
        launched(
            tmp_path / "two",
            *options,
            python=(),
            **job,
            SLURM_PROCID=str(rank),
            SLURM_NODEID=str(rank),
            SLURM_LOCALID="0",
            SLURM_STEP_ID="0",
            SRUN_COMM_HOST="127.0.0.1",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in range(2)
    ]
    for task in tasks:
        _, errors = task.communicate(timeout=120)
        assert task.returncode == 0, errors.decode()
    require_close(read_checkpoint(latest_checkpoint(tmp_path / "two")), run_here(tmp_path / "one"))


def test_other_numbers_of_processes_than_were_started_are_refused(tmp_path, monkeypatch):
    for name, value in dict(TORCHELASTIC_RUN_ID="1", RANK="0", LOCAL_RANK="0", WORLD_SIZE="2").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ValueError, match="torchrun started 2 processes, and the settings say devices=1 on each of node"
    ):
        small_run(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def times_of(run: Path, **options) -> list[torch.Tensor]:
    """The times of every step, as the loss sees them."""
    seen = []

    def watched(model, x0, t, generators):
        seen.append(t)
        return noise_error(model, x0, t, generators)

    small_run(run, watched, steps=30, **options)
    return [torch.cat(parts) for parts in zip(*[iter(seen[1:])] * options.get("accumulate", 1), strict=True)]


def test_stratified_times_are_one_in_each_sixteenth_and_uniform(tmp_path):
    steps = times_of(tmp_path / "whole", times="stratified")
    offsets = []
    for t in steps:
        places = (t - 1e-5) / (1 - 1e-5) * 16
        assert sorted(places.long().tolist()) == list(range(16))
        offsets.append(float(places[0] % 1))
        torch.testing.assert_close(places % 1, torch.full((16,), offsets[-1], dtype=torch.float64), rtol=0, atol=1e-9)
    assert len({round(offset, 6) for offset in offsets}) == 30
    assert sum(offsets) / 30 == pytest.approx(0.5, abs=4 / (12 * 30) ** 0.5)
    assert all(
        torch.equal(a, b)
        for a, b in zip(steps, times_of(tmp_path / "parts", times="stratified", accumulate=2), strict=True)
    )
