"""The published experiments: sizes of their networks, settings, and that each is whole."""

import pytest
import torch
import yaml

from psld.cli import main
from psld.cli.presets import millions
from psld.networks import NCSNpp
from psld.pretrained import PRESETS, preset

COUNTED = {
    "cifar10-ablation-0.01": 39.40,
    "cifar10-ablation-cld": 39.39,
    "cifar10-ablation-vp": 39.39,
    "cifar10-sota-0.01": 97.63,
    "celeba64-ablation-0.01": 66.72,
    "celeba64-sota-0.005": 62.77,
    "afhqv2-ablation-0.01": 65.82,
    "afhqv2-sota-0.01": 128.45,
    "cifar10-classifier-0.01": 56.67,
}


@pytest.mark.parametrize(("name", "size"), COUNTED.items())
def test_parameters_of_the_published_networks(name, size):
    assert round(millions(preset(name)), 2) == size


def test_parameters_of_the_networks_in_between():
    """4 blocks of (2, 2, 2): the network of the paper's 55 M column, plain and in full."""
    with torch.device("meta"):
        plain = NCSNpp(6, 6, 32, 128, (2, 2, 2), 4)
        full = NCSNpp(6, 6, 32, 128, (2, 2, 2), 4, embedding="fourier", resampling="fir", progressive_input="residual")
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (plain, full)]
    assert [round(count / 1e6, 2) for count in counts] == [55.74, 56.41]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_whole(name):
    item = preset(name)
    config = yaml.safe_load(item.text())
    assert config == item.config()
    assert config["jitter"] == (0.0 if name.endswith("-vp") else 1e-9)
    assert config["training"]["warmup_steps"] == 5000 and config["training"]["t_min"] == 1e-5
    assert config["data"]["init_args"]["flip"] is True
    if not item.classifier:
        assert (config["training"]["ema_decay"], config["training"]["clip_norm"]) == (0.9999, 1.0)
    gamma = name.rsplit("-", 1)[1]
    if gamma not in ("cld", "vp"):
        assert config["process"]["init_args"]["gamma"] == float(gamma)


@pytest.mark.parametrize("family", ["cifar10-ablation", "cifar10-sota"])
def test_the_ablation_of_gamma_is_complete(family):
    assert {f"{family}-{gamma}" for gamma in ("cld", "0.005", "0.01", "0.02", "0.25")} <= set(PRESETS)


def test_the_list_says_what_the_paper_reports(capsys):
    assert main(["presets"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(PRESETS) < set(lines)
    assert "97.63 M" in lines["cifar10-sota-0.01"] and "2.10 @ 246" in lines["cifar10-sota-0.01"]


def test_one_preset_is_printed_as_yaml(capsys):
    assert main(["presets", "cifar10-ablation-0.02"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["process"]["init_args"]["gamma"] == 0.02


def test_an_unknown_preset_is_refused(capsys):
    assert main(["presets", "cifar-sota"]) == 1
    assert "Near it: cifar10-sota-" in capsys.readouterr().err
