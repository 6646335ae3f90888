"""Training under torch.compile: the same steps, and nothing of it is left in what is saved."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from psld.training import latest_checkpoint, load_weights
from psld.training.checkpoint import Checkpoint
from psld.training.reading import read_checkpoint
from training.small_run import TwoConvolutions, launched, small_run


def compile_with(monkeypatch, backend) -> None:
    import lightning.fabric  # noqa: F401 (it wraps torch.compile when it is imported, to know the arguments again)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))


@pytest.fixture
def graphs(monkeypatch) -> list[torch.fx.GraphModule]:
    """What is compiled, by a backend that runs it as it is."""
    compiled = []

    def backend(graph: torch.fx.GraphModule, _):
        compiled.append(graph)
        return graph

    compile_with(monkeypatch, backend)
    return compiled


def require_close(got: Checkpoint, want: Checkpoint, tolerance: float) -> None:
    assert (got.step, got.weights.keys()) == (want.step, want.weights.keys())
    for tensors, others in ((got.weights, want.weights), (got.averages, want.averages)):
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, others[name], rtol=0, atol=tolerance)


def test_compiled_steps_are_the_plain_ones(graphs, tmp_path):
    plain = small_run(tmp_path / "plain", network=TwoConvolutions(), steps=6)
    assert graphs == []
    network = TwoConvolutions()
    compiled = small_run(tmp_path / "compiled", network=network, steps=6, compile=True)
    assert len(graphs) == 2  # the network of the rehearsal, without gradients, and the network
    start = TwoConvolutions().state_dict()
    assert all(float((tensor - start[name]).abs().max()) > 1e-2 for name, tensor in network.state_dict().items())
    require_close(read_checkpoint(compiled), read_checkpoint(plain), 1e-6)
    load_weights(compiled, TwoConvolutions())
    network(torch.zeros(1, 1, 1, 8, 8), torch.ones(1))
    assert len(graphs) == 2  # the caller's network is as plain as it was


def test_a_compiled_run_resumes_to_the_bit(graphs, tmp_path):
    whole = read_checkpoint(small_run(tmp_path / "whole", network=TwoConvolutions(), steps=6, compile=True))
    small_run(tmp_path / "parts", network=TwoConvolutions(), steps=3, compile=True)
    parts = small_run(tmp_path / "parts", network=TwoConvolutions(), steps=6, compile=True, resume=True)
    require_close(read_checkpoint(parts), whole, 0.0)
    assert graphs


def test_what_cannot_be_compiled_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("there is no compiler")

    compile_with(monkeypatch, broken)
    with pytest.raises(ValueError, match=r"(?s)training.compile is on, .*there is no compiler.*Leave it out"):
        small_run(tmp_path / "run", network=TwoConvolutions(), compile=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "strategy"), [(1, "auto"), (2, "ddp"), (2, "fsdp")])
def test_compiled_by_the_default_backend(tmp_path, devices, strategy):
    process = launched(tmp_path, str(devices), strategy, script=__file__)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()
    plain, compiled = (read_checkpoint(latest_checkpoint(tmp_path / run)) for run in ("plain", "compiled"))
    require_close(compiled, plain, 1e-4)


def main(folder: Path, devices: int, strategy: str) -> None:
    """As a script: FOLDER/plain and FOLDER/compiled, on so many devices."""
    for run in ("plain", "compiled"):
        network = TwoConvolutions(dropout=0.0)  # masks are drawn otherwise
        small_run(folder / run, network=network, steps=6, devices=devices, strategy=strategy, compile=run == "compiled")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
