"""Settings, average, log: what the loop is made of."""

import csv
import math

import pytest
import torch
from torch import nn

from psld.training import ExponentialMovingAverage
from psld.training.logs import MetricsFile, MetricsRow
from training.small_run import small_settings


@pytest.mark.parametrize("decay", [0.0, 0.2, 0.9])
def test_average_is_the_closed_form_sum(decay):
    """a_n = Σ_i (1 − d_i) Π_{j>i} d_j w_i, with w_0 weighted by the product of all d."""
    network = nn.Linear(1, 1, bias=False)
    values = [torch.randn(1, 1, dtype=torch.float64) for _ in range(8)]
    average = None
    for value in values:
        with torch.no_grad():
            network.weight.copy_(value)
        if average is None:
            average = ExponentialMovingAverage(network, decay)
        else:
            average.update()
    assert average is not None
    decays = [1.0] + [min(decay, (1 + n) / (10 + n)) for n in range(1, 8)]
    weights = [(1 - d if i else 1.0) * math.prod(decays[i + 1 :]) for i, d in enumerate(decays)]
    want = sum(w * float(v) for w, v in zip(weights, values, strict=True))
    assert sum(weights) == pytest.approx(1.0)
    assert float(average.state_dict()["weight"]) == pytest.approx(want, abs=1e-6)
    assert float(network.weight.detach()) == pytest.approx(float(values[-1]))


def test_average_keeps_buffers_of_the_network():
    network = nn.BatchNorm1d(3)
    average = ExponentialMovingAverage(network, 0.9)
    network(torch.randn(10, 3))
    assert torch.equal(average.state_dict()["running_mean"], network.running_mean)  # pyright: ignore


def test_warmup_is_linear():
    settings = small_settings(learning_rate=0.5, warmup_steps=4)
    assert [settings.learning_rate_at(step) for step in range(1, 7)] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert small_settings(learning_rate=0.5, warmup_steps=0).learning_rate_at(1) == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(steps=0), "steps must be at least 1: got 0"),
        (dict(batch_size=0), "batch_size must be at least 1"),
        (dict(learning_rate=0.0), "learning_rate must be a positive, finite number"),
        (dict(learning_rate=math.nan), "learning_rate must be a number: got nan"),
        (dict(warmup_steps=-1), "warmup_steps must be at least 0"),
        (dict(clip_norm=0.0), "clip_norm must be positive"),
        (dict(ema_decay=1.0), r"ema_decay must be in \[0, 1\)"),
        (dict(t_min=0.0), r"t_min must be in \(0, 1\): got 0.0"),
        (dict(t_min=1.0), r"t_min must be in \(0, 1\): got 1.0"),
        (dict(precision="16-true"), "'32-true', 'bf16-mixed' or '16-mixed': got '16-true'"),
        (dict(max_seconds=0.0), "max_seconds must be positive"),
        (dict(devices=3), "16 does not divide among 3"),
        (dict(nodes=0), "nodes must be at least 1"),
        (dict(devices=2, nodes=3), "16 does not divide among 6"),
        (dict(devices=2, accumulate=3), "8 images of a step do not divide into accumulate=3"),
        (dict(strategy="zero"), "'auto', 'ddp' or 'fsdp': got 'zero'"),
        (dict(checkpoints="split"), "'whole' or 'sharded': got 'split'"),
        (dict(checkpoints="sharded", devices=2), "'sharded' needs strategy='fsdp': got 'auto', under which every"),
        (dict(times="sobol"), "'uniform' or 'stratified': got 'sobol'"),
        (dict(ema_decay=None, ema_half_life=0.0), "ema_half_life must be a positive, finite number"),
        (dict(ema_half_life=1e6), "ema_decay=0.9 and ema_half_life=1000000.0 say the same thing twice"),
    ],
)
def test_settings_refuse(changes, message):
    with pytest.raises(ValueError, match=message):
        small_settings(**changes)


def test_metrics_drop_what_a_resumed_run_repeats_and_torn_rows(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = MetricsFile(path, 0)
    for step in (10, 20, 30):
        metrics.write(MetricsRow(step, 16 * step, 0.1, 1.0, 1e-4, 5.0, float(step)))
    metrics.close()
    with path.open("a") as file:
        file.write("40,0.2,1")
    metrics = MetricsFile(path, 20)
    metrics.write(MetricsRow(25, 400, 0.3, 1.0, 1e-4, 5.0, 25.0))
    metrics.close()
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["loss"]) for row in rows] == [("10", "0.1"), ("20", "0.1"), ("25", "0.3")]


def test_half_life_in_images_is_the_same_for_every_batch_size():
    for batch_size in (16, 64):
        settings = small_settings(ema_decay=None, ema_half_life=640.0, batch_size=batch_size)
        assert settings.decay ** (640 / batch_size) == pytest.approx(0.5)
    assert small_settings(ema_decay=None).decay == 0.9999  # as published


def test_metrics_of_an_older_version_keep_their_rows(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,gradient_norm,learning_rate,images_per_second,seconds\n10,0.1,1.0,0.1,5.0,2.0\n")
    MetricsFile(path, 10).close()
    with path.open() as file:
        (row,) = csv.DictReader(file)
    assert (row["step"], row["images"], row["loss"], row["seconds"]) == ("10", "", "0.1", "2.0")
