"""The diffusion transformer against a second computation of its formulas, and under everything that takes a network."""

import math

import pytest
import torch
from torch import nn

from psld import PSLD, ScoreModel
from psld.data import Digits
from psld.losses import Denoising
from psld.networks import DiT, Patched, Preconditioned, PreconditionedState
from psld.networks.dit import DiTBlock, patch_positions
from psld.training import TrainingSettings, train

Z = torch.randn(2, 2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([0.1, 0.8])


def small(**changes) -> DiT:
    sizes = dict(in_channels=6, out_channels=6, patch_size=4, width=16, depth=2, heads=2)
    return DiT(**(sizes | changes))  # pyright: ignore[reportArgumentType]


def randomised(network):
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def normed(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()


def linear(layer, x):
    return x @ layer.weight.T + layer.bias


def block_by_hand(block, x, c, heads):
    """Token by token and head by head, for one sample: x (N, D), c (D,)."""
    shift1, scale1, gate1, shift2, scale2, gate2 = linear(block.modulation, c).chunk(6)
    h = normed(x) * (1 + scale1) + shift1
    query, key, value = (linear(layer, h) for layer in (block.query, block.key, block.value))
    width = x.shape[1] // heads
    mixed = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for token in range(len(x)):
            weights = torch.softmax(key[:, part] @ query[token, part] / math.sqrt(width), dim=0)
            mixed[token, part] = weights @ value[:, part]
    x = x + gate1 * linear(block.out, mixed)
    h = linear(block.mlp_in, normed(x) * (1 + scale2) + shift2)
    gelu = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    return x + gate2 * linear(block.mlp_out, gelu)


def network_by_hand(network, image, t, label):
    """One image (C, H, W) at one time; patches are cut and put back pixel by pixel."""
    p, width = network.patch_size, network.width
    channels, height, columns = image.shape[0], image.shape[1] // p, image.shape[2] // p
    tokens = []
    for r in range(height):
        for c in range(columns):
            patch = image[:, r * p : (r + 1) * p, c * p : (c + 1) * p].reshape(channels * p * p)
            place = [f(v / 10_000 ** (j / (width // 4))) for v, f in places(r, c) for j in range(width // 4)]
            tokens.append(linear(network.patch_in, patch) + torch.tensor(place, dtype=patch.dtype))
    x = torch.stack(tokens)
    frequencies = 10_000.0 ** (-torch.arange(width // 2, dtype=image.dtype) / (width // 2 - 1))
    embedded = torch.cat([(1000 * t * frequencies).sin(), (1000 * t * frequencies).cos()])
    hidden = linear(network.time_in, embedded)
    features = linear(network.time_out, hidden * hidden.sigmoid()) + network.class_embedding.weight[label]
    c = features * features.sigmoid()
    for block in network.blocks:
        x = block_by_hand(block, x, c, block.heads)
    shift, scale = linear(network.modulation_out, c).chunk(2)
    patches = linear(network.patch_out, normed(x) * (1 + scale) + shift)
    out = torch.zeros(network.out_channels, height * p, columns * p, dtype=image.dtype)
    for n, patch in enumerate(patches):
        r, c = divmod(n, columns)
        out[:, r * p : (r + 1) * p, c * p : (c + 1) * p] = patch.reshape(-1, p, p)
    return out


def places(row, column):
    return ((column, math.sin), (column, math.cos), (row, math.sin), (row, math.cos))


def test_output_is_that_of_the_formulas_spelt_out():
    """On images that are not square, with labels; the small t keeps float32 sines of 1000 t comparable."""
    network = randomised(small(classes=3)).double()
    t, label = torch.tensor([0.001, 0.003], dtype=torch.float64), torch.tensor([2, 0])
    ours = network(Z.double(), t, label=label).flatten(1, 2)
    for i in range(2):
        wanted = network_by_hand(network, Z[i].double().flatten(0, 1), t[i], int(label[i]))
        torch.testing.assert_close(ours[i], wanted, rtol=1e-5, atol=1e-5)


def test_untrained_output_is_zero_and_untrained_blocks_are_identities():
    network = small(classes=3)
    assert torch.equal(network(Z, TIMES), torch.zeros_like(Z))
    x, condition = torch.randn(2, 6, 16), torch.randn(2, 16)
    assert torch.equal(network.blocks[0](x, condition), x)


def test_a_block_is_its_formula():
    block = randomised(DiTBlock(16, heads=4, mlp_ratio=2.0)).double()
    x, condition = torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(2, 16, dtype=torch.float64)
    for i in range(2):
        wanted = block_by_hand(block, x[i], condition[i], heads=4)
        torch.testing.assert_close(block(x, condition)[i], wanted, rtol=1e-10, atol=1e-10)


def test_positions_are_the_sines_and_cosines_of_row_and_column():
    got = patch_positions(3, 5, 8)
    assert got.shape == (15, 8)
    for row, column in ((0, 0), (2, 1), (1, 4)):
        wanted = [f(value / 10_000 ** (j / 2)) for value, f in places(row, column) for j in range(2)]
        torch.testing.assert_close(got[5 * row + column], torch.tensor(wanted), rtol=1e-6, atol=1e-7)


def test_without_positions_patches_are_exchangeable(monkeypatch):
    """Attention and MLP know no order, so turning the patches over turns the output over; with positions not."""
    network = randomised(small())
    turned = Z.unflatten(4, (3, 4)).flip(4).flatten(4)
    with_positions = network(turned, TIMES).unflatten(4, (3, 4)).flip(4).flatten(4)
    assert not torch.allclose(with_positions, network(Z, TIMES), atol=1e-2)
    monkeypatch.setattr("psld.networks.dit.patch_positions", lambda *shape, **device: torch.zeros(()))
    without = network(turned, TIMES).unflatten(4, (3, 4)).flip(4).flatten(4)
    torch.testing.assert_close(without, network(Z, TIMES), rtol=1e-4, atol=1e-4)


def test_variables_are_folded_into_channels_and_fewer_may_come_out():
    network = randomised(small(out_channels=3))
    unfolded, folded = network(Z, TIMES), network(Z.flatten(1, 2), TIMES)
    assert unfolded.shape == (2, 1, 3, 8, 12) and torch.equal(unfolded[:, 0], folded)


def test_samples_do_not_see_one_another_but_see_their_time():
    network = randomised(small())
    torch.testing.assert_close(network(Z, TIMES)[1:], network(Z[1:], TIMES[1:]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(network(Z, TIMES), network(Z, TIMES.flip(0)))


def test_no_label_is_the_null_class_and_labels_are_rows_of_the_embedding():
    network = randomised(small(classes=3))
    assert network.class_embedding.weight.shape == (4, 16)
    null, one = (network(Z, TIMES, label=torch.tensor([n, n])) for n in (3, 1))
    assert torch.equal(network(Z, TIMES), null) and not torch.allclose(one, null)
    with torch.no_grad():
        network.class_embedding.weight[1] = network.class_embedding.weight[3]
    assert torch.equal(network(Z, TIMES, label=torch.tensor([1, 1])), null)
    with pytest.raises(ValueError, match="label was given to a network without classes"):
        small()(Z, TIMES, label=torch.tensor([0, 1]))


def test_classes_change_no_other_initial_weight():
    torch.manual_seed(0)
    plain = small().state_dict()
    torch.manual_seed(0)
    labelled = small(classes=3).state_dict()
    assert all(torch.equal(labelled[name], tensor) for name, tensor in plain.items())


def test_gradients_reach_every_parameter_as_the_zeros_fill():
    """From zeros the output layer moves first, then the gates behind it, then what the gates let through."""
    network = small(classes=3).double()
    target = torch.randn(Z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    moved = []
    for _ in range(3):
        optimizer.zero_grad()
        label = torch.tensor([0, 3])
        (network(Z.double(), TIMES.double(), label=label) - target).square().mean().backward()
        moved.append({name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0})
        optimizer.step()
    assert moved[0] == {"patch_out.weight", "patch_out.bias"}
    assert "blocks.0.modulation.weight" in moved[1] and "blocks.0.query.weight" not in moved[1]
    # The key's bias shifts all logits of a query alike, which softmax does not see: its gradient is rounding.
    every = {name for name, _ in network.named_parameters() if not name.endswith("key.bias")}
    assert every <= moved[2]


def test_gradients_of_gradients():
    """By finite differences along one direction, and forward mode; in eval mode, whose attention is not fused."""
    network = randomised(small()).double().eval()
    z = Z.double().requires_grad_()

    def slope(state):
        return torch.autograd.grad(network(state, TIMES.double()).square().mean(), state, create_graph=True)[0]

    direction, h = torch.randn_like(z), 1e-6
    (second,) = torch.autograd.grad(slope(z), z, direction)
    with torch.no_grad():
        ahead, behind = z + h * direction, z - h * direction
    numeric = ((slope(ahead.requires_grad_()) - slope(behind.requires_grad_())) / (2 * h)).detach()
    torch.testing.assert_close(second, numeric, rtol=1e-5, atol=1e-5 * float(numeric.abs().max()))
    forward = torch.func.jvp(lambda state: network(state, TIMES.double()), (Z.double(),), (direction,))[1]
    one, other = (network(Z.double() + sign * h * direction, TIMES.double()) for sign in (1, -1))
    change = ((one - other) / (2 * h)).detach()
    torch.testing.assert_close(forward, change, rtol=1e-5, atol=1e-5 * float(change.abs().max()))


def test_training_mode_eval_mode_and_no_grad_are_one_function():
    network = randomised(small()).double()
    z, t = Z.double(), TIMES.double()
    trained, evaluated = network.train()(z, t), network.eval()(z, t)
    torch.testing.assert_close(trained, evaluated, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(network(z, t), evaluated, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(width=18), "width must be divisible by 4 and by heads=2: got 18"),
        (dict(heads=3), "width must be divisible by 4 and by heads=3: got 16"),
        (dict(depth=0), "depth must be at least 1: got 0"),
        (dict(patch_size=0), "patch_size must be at least 1: got 0"),
        (dict(mlp_ratio=0.0), "mlp_ratio must be positive, and at most 1024: got 0.0"),
        (dict(classes=0), "classes must be at least 1: got 0"),
        (dict(in_channels=0), "in_channels must be at least 1: got 0"),
    ],
)
def test_construction_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_call_refuses():
    with pytest.raises(ValueError, match="8×10 do not divide into patches of 4×4; .* width 8 or 12. Use another patch"):
        small()(torch.zeros(2, 2, 3, 8, 10), TIMES)
    with pytest.raises(ValueError, match="in_channels=6, the input has 3"):
        small()(torch.zeros(2, 1, 3, 8, 8), TIMES)
    with pytest.raises(ValueError, match="no multiple of the 3 channels"):
        small(out_channels=4)(Z, TIMES)


def test_a_preconditioned_transformer_starts_as_the_best_linear_denoiser():
    """s²/(s² + σ²) y, behind patches as well, which do not change what zero is."""
    inner = DiT(in_channels=4, out_channels=4, patch_size=2, width=16, depth=1, heads=2, classes=5)
    denoiser = Preconditioned(Patched(inner, size=2), sigma_data=0.5)
    y = torch.randn(3, 1, 8, 16)
    torch.testing.assert_close(denoiser(y, torch.full((3,), 0.5)), 0.5 * y)
    assert denoiser.classes == 5
    state = PreconditionedState(DiT(in_channels=2, out_channels=1, width=16, depth=1, heads=2), PSLD(), sigma_data=0.5)
    process = PSLD()
    z = torch.randn(3, 2, 1, 8, 8)
    y, sigma = process.statistic(z, 0.3)
    wanted = 0.25 / (0.25 + float(sigma) ** 2) * y
    torch.testing.assert_close(state(z, torch.full((3,), 0.3))[:, 0], wanted, rtol=1e-4, atol=1e-5)


def test_twenty_steps_on_the_digits_lower_the_loss(tmp_path):
    torch.manual_seed(0)
    inner = DiT(in_channels=1, out_channels=1, patch_size=2, width=32, depth=2, heads=2)
    network = Preconditioned(inner, sigma_data=0.85)
    data, loss = Digits(), Denoising(sigma_data=0.85)

    def held_out():
        model = ScoreModel(network.eval(), PSLD(), predicts="denoiser")
        images = Digits("heldout").batch(range(200))
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            return float((model.denoise(images + noise, torch.ones(len(images))) - images).square().mean())

    before = held_out()
    settings = TrainingSettings(steps=20, batch_size=64, learning_rate=2e-3, warmup_steps=5, log_every=10)
    train(ScoreModel(network, PSLD(), predicts="denoiser"), data, loss, settings, tmp_path / "run")
    assert held_out() < 0.9 * before
