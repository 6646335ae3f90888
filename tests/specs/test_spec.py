"""Specs: what is recorded, when two objects are the same, and a repr that evaluates back."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from psld.specs import Spec, SpecError, Specified, SpecifiedValue, describe, spec_of


class Rate(SpecifiedValue):
    def __init__(self, beta: float = 8.0, ends: tuple[float, float] = (0.0, 1.0)):
        self.beta, self.ends = beta, ends


class Run(SpecifiedValue):
    shown = ("T",)

    def __init__(self, rate: Rate, matrix, T: float = 1.0, *, note: str | None = None):
        self.rate = rate


class Net(Specified, nn.Module):
    def __init__(self, width: int, inner: nn.Module | None = None):
        super().__init__()
        self.layer, self.inner = nn.Linear(width, width), inner


class Silent(nn.Module):
    pass


def test_every_argument_is_recorded_defaults_included():
    assert Rate(4.0).spec.arguments == {"beta": 4.0, "ends": [0.0, 1.0]}
    config = Run(Rate(), [[1.0, 2.0]]).spec.config()
    own = Rate.__module__
    assert config == {
        "class_path": f"{own}.Run",
        "init_args": {
            "rate": {"class_path": f"{own}.Rate", "init_args": {"beta": 8.0, "ends": [0.0, 1.0]}},
            "matrix": [[1.0, 2.0]],
            "T": 1.0,
            "note": None,
        },
    }


@pytest.mark.parametrize(
    "other",
    [Run(Rate(4.0), [[1.0]]), Run(Rate(), [[1.5]]), Run(Rate(), [[1.0]], 2.0), Run(Rate(), [[1.0]], note="x")],
)
def test_any_argument_makes_another_object(other):
    """Each differs in one argument from the first, and repr, equality and digest all see it."""
    first = Run(Rate(), [[1.0]])
    assert first != other
    assert repr(first) != repr(other)
    assert first.spec.digest != other.spec.digest


def test_equal_arguments_are_one_identity_however_they_are_given():
    matrix = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    same = [Run(Rate(8), matrix), Run(matrix=[[1, 2]], rate=Rate(beta=8.0)), Run(Rate(), ((1.0, 2.0),), 1)]
    assert len(set(same)) == 1 and len({made.spec.digest for made in same}) == 1


def test_repr_evaluates_back():
    for made in (Rate(), Rate(0.1 + 0.2), Run(Rate(4.0, (0.5, 2.0)), [[1.0, -0.5]], note="it's"), Run(Rate(), [], 3.0)):
        assert eval(repr(made)) == made
    assert repr(Rate(4.0)) == "Rate(beta=4)"
    assert repr(Run(Rate(), [])) == "Run(Rate(), [], T=1)"


def test_a_list_that_is_changed_afterwards_does_not_change_the_spec():
    matrix = [[1.0]]
    made = Run(Rate(), matrix)
    matrix[0][0] = 5.0
    assert made.spec.arguments["matrix"] == [[1.0]]


def test_large_tensors_are_known_by_content():
    values = torch.arange(1000.0)
    changed = values.clone()
    changed[500] += 1e-3
    assert describe(values) == describe(values.clone())
    assert describe(values)["sha256"] != describe(changed)["sha256"]
    assert describe(values)["tensor"] == [1000]


def test_networks_record_and_stay_modules():
    net = Net(3, Net(2))
    assert net.spec.arguments["inner"].arguments == {"width": 2, "inner": None}
    assert Net(3) != Net(3)  # two modules are never the same: their weights differ
    assert set(net.state_dict()) == {"layer.weight", "layer.bias", "inner.layer.weight", "inner.layer.bias"}
    for other in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.spec == net.spec


def test_what_cannot_be_described_is_named():
    assert Net(3, Silent()).layer.in_features == 3  # it works all the same
    with pytest.raises(
        SpecError, match=r"Net\(inner=…\): Silent does not record.*derive its class from psld.Specified"
    ):
        _ = Net(3, Silent()).spec
    with pytest.raises(SpecError, match="<lambda> does not record"):
        spec_of(lambda z: z)


def test_plain_values():
    assert describe(Path("a") / "b") == "a/b"
    assert describe({"x": (1, torch.tensor(2.0))}) == {"x": [1, 2.0]}
    assert describe(torch.bfloat16) == "torch.bfloat16"
    assert Spec("a.B", {"x": 1}) == Spec("a.B", {"x": 1.0}) != Spec("a.B", {"x": 1.5})


def test_wrong_arguments_are_refused_by_the_constructor():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'width'"):
        Net()  # pyright: ignore[reportCallIssue]


class Plain(SpecifiedValue):
    """Without a constructor of its own."""


def test_a_class_without_a_constructor_takes_nothing():
    assert repr(Plain()) == "Plain()" and Plain().spec.arguments == {} and Plain() == Plain()
    with pytest.raises(TypeError, match=r"Plain\(\) takes no arguments"):
        Plain(3)  # pyright: ignore[reportCallIssue]


def test_a_class_of_a_script_is_known_as_others_import_it(tmp_path):
    """What a script writes, another program can load: never __main__.Own."""
    script = "import psld, torch\nclass Own(psld.Specified, torch.nn.Linear): pass\nprint(Own(2, 3).spec.path)\n"
    (tmp_path / "my_script.py").write_text(script)
    shown = subprocess.run([sys.executable, tmp_path / "my_script.py"], capture_output=True, text=True, check=True)
    assert shown.stdout == "my_script.Own\n"
