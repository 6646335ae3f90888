"""Training with labels: which are dropped, what that trains, and that nothing else changes."""

import pytest
import torch

from psld.data import Digits, Images
from psld.data.order import ShuffledBatches
from psld.losses import DSM, HSM, CrossEntropy, Denoising, Objective
from psld.model import ScoreModel
from psld.networks import NoiseClassifier, Preconditioned
from psld.noise import Generators
from psld.processes import CLD, VPSDE
from psld.training import train
from psld.training.reading import read_checkpoint
from training.small_run import noise_error, small_network, small_run, small_settings

ROWS = "class_embedding.weight"


def labelled_network(classes=10, dropout=0.0):
    return small_network(dropout, classes=classes)


class Told:
    """A loss that writes down its times, noise generators' seeds and labels, and learns."""

    def __init__(self):
        self.t, self.seeds, self.labels = [], [], []

    def __call__(self, model, x0, t, generator: Generators, label=None):
        if torch.is_grad_enabled():
            self.t.append(t)
            self.seeds.append([own.initial_seed() for own in generator])  # pyright: ignore
            self.labels.append(label)
        return noise_error(model, x0, t, generator, label=label)


def told(tmp_path, name, **options):
    loss = Told()
    network = labelled_network() if options.get("label_dropout") is not None else small_network(0.0)
    small_run(tmp_path / name, loss, network, steps=6, **options)
    return loss


def flat(batches):
    return torch.cat(list(batches)).tolist()


def test_labels_are_those_of_the_images(tmp_path):
    """An image that is its label, at every position of every batch."""
    data = Images(torch.linspace(-1, 1, 12).repeat_interleave(3)[:, None, None, None].expand(36, 1, 8, 8))
    data.labels = torch.arange(12).repeat_interleave(3)
    data.classes = tuple("abcdefghijkl")
    seen = []

    def loss(model, x0, t, generator, label):
        seen.append(((x0[:, 0, 0, 0] + 1) * 5.5 - label).abs().max())
        return noise_error(model, x0, t, generator, label=label)

    small_run(tmp_path / "run", loss, labelled_network(12), data, steps=4, label_dropout=0.0)
    assert len(seen) == 5 and float(torch.stack(seen).max()) < 1e-5  # four steps and the rehearsal


def test_dropped_labels_are_the_null_class_in_the_share_that_was_asked_for(tmp_path):
    kept, half = (told(tmp_path, str(p), label_dropout=p, batch_size=128).labels for p in (0.0, 0.5))
    every, some = torch.cat(kept), torch.cat(half)
    dropped = some == 10
    assert int(every.max()) == 9 and torch.equal(some[~dropped], every[~dropped])
    assert abs(float(dropped.double().mean()) - 0.5) < 4 * 0.5 / len(some) ** 0.5  # four standard errors


def test_labels_change_neither_times_nor_noise(tmp_path):
    plain, labelled = told(tmp_path, "plain"), told(tmp_path, "labelled", label_dropout=0.3)
    assert plain.labels == [None] * 6
    assert flat(plain.t) == flat(labelled.t) and plain.seeds == labelled.seeds


def test_parts_of_a_batch_drop_the_same_labels(tmp_path):
    whole, parts = (told(tmp_path, str(n), label_dropout=0.5, accumulate=n) for n in (1, 4))
    assert len(parts.labels) == 4 * len(whole.labels)
    assert flat(whole.labels) == flat(parts.labels)


def test_with_every_label_dropped_only_the_null_row_is_trained(tmp_path):
    before = labelled_network().state_dict()[ROWS].clone()
    folder = small_run(tmp_path / "run", noise_error, labelled_network(), steps=8, label_dropout=1.0)
    after = read_checkpoint(folder).weights[ROWS]
    assert torch.equal(after[:10], before[:10])
    assert not torch.equal(after[10], before[10])


def test_with_none_dropped_the_null_row_stays(tmp_path):
    before = labelled_network().state_dict()[ROWS].clone()
    folder = small_run(tmp_path / "run", noise_error, labelled_network(), steps=8, label_dropout=0.0)
    after = read_checkpoint(folder).weights[ROWS]
    assert torch.equal(after[10], before[10])
    assert all(not torch.equal(after[i], before[i]) for i in range(10))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_resumes_bit_for_bit(tmp_path, num_workers):
    def go(name, steps, resume=False):
        network = Preconditioned(labelled_network(dropout=0.3), 0.85)
        settings = small_settings(steps=steps, label_dropout=0.2, num_workers=num_workers)
        data, loss = Digits("heldout"), Denoising(0.85, -0.67)
        model = ScoreModel(network, CLD(), "denoiser")
        return train(model, data, loss, settings, tmp_path / name, seed=3, resume=resume)

    whole = read_checkpoint(go("whole", 8))
    go("parts", 5)
    parts = read_checkpoint(go("parts", 8, resume=True))
    for want, found in ((whole.weights, parts.weights), (whole.averages, parts.averages)):
        assert want.keys() == found.keys() and all(torch.equal(want[name], found[name]) for name in want)


@pytest.mark.parametrize("loss", [HSM(), DSM(), Denoising()], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("predicts", ["eps", "x0", "denoiser"])
def test_every_loss_hands_the_label_to_the_network(loss, predicts):
    """A network that answers its label, against the loss of networks that answer one number each."""
    if isinstance(loss, Denoising) and predicts == "eps":
        return  # refused

    def value(network, x0, **condition):
        matching = "dsm" if isinstance(loss, DSM) else "hsm"
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(x0))]
        model = ScoreModel(network, CLD(), predicts, matching)
        return loss(model, x0, torch.tensor([0.2, 0.9], dtype=torch.float64), generators, **condition)

    def answer(z, number):
        return number.to(z).reshape(-1, *[1] * (z.ndim - 1)) * torch.ones_like(z if predicts != "x0" else z[:, :1])

    assert isinstance(loss, Objective)
    x0 = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = value(lambda z, t, label: answer(z, label), x0, label=torch.tensor([2, 5]))
    for row, number in enumerate((2, 5)):
        alone = value(lambda z, t, n=number: answer(z, torch.full((len(z),), n)), x0)
        assert float(found[row]) == float(alone[row])


class Unlabelled(Images):
    def __init__(self):
        super().__init__(torch.zeros(20, 1, 8, 8))


@pytest.mark.parametrize(
    ("network", "data", "dropout", "message"),
    [
        (labelled_network, Unlabelled, 0.1, "needs labels, and the Unlabelled data have none"),
        (labelled_network, lambda: [torch.zeros(1, 8, 8)] * 20, 0.1, "needs labels, and the list data have none"),
        (lambda: labelled_network(7), Digits, 0.1, "the data have 10 classes and the network has classes=7"),
        (small_network, Digits, 0.1, "the data have 10 classes and the network has classes=None"),
        (labelled_network, Digits, None, "classes=10 and would be told no labels: give training.label_dropout"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, network, data, dropout, message):
    with pytest.raises(ValueError, match=message):
        small_run(tmp_path / "run", noise_error, network(), data(), label_dropout=dropout)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_refused_and_kept_on_resume(tmp_path):
    for value in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"label_dropout must be in \[0, 1\], or None for no labels: got {value}"):
            small_settings(label_dropout=value)
    small_run(tmp_path / "run", noise_error, labelled_network(), steps=2, label_dropout=0.1)
    with pytest.raises(ValueError, match="started with label_dropout=0.1, not 0.2"):
        small_run(tmp_path / "run", noise_error, labelled_network(), label_dropout=0.2, resume=True)


# -- classifiers -------------------------------------------------------------------------------------------------------


def small_classifier(classes=10, dropout=0.0):
    torch.manual_seed(0)
    return NoiseClassifier(
        in_channels=1,
        classes=classes,
        image_size=8,
        width=8,
        multipliers=(1,),
        blocks=1,
        attention_resolutions=(),
        dropout=dropout,
    )


def test_a_loss_that_asks_for_labels_gets_all_of_them(tmp_path):
    """Whatever the step, the labels are those of the images, and times and noise those of a run without labels."""

    class Asking(Told):
        asks_for_labels = True

        def __call__(self, model, x0, t, generator, label=None):
            loss = super().__call__(ScoreModel(small_network(0.0), VPSDE()), x0, t, generator)
            self.labels[-1:] = [label] if torch.is_grad_enabled() else []
            return loss + CrossEntropy()(model, x0, t, generator, label)

    asking, plain = Asking(), told(tmp_path, "plain")
    data = Digits("heldout")
    small_run(tmp_path / "asking", asking, small_classifier(), data, steps=6)
    batches = ShuffledBatches(len(data), 16, 3, 0, 6)
    assert flat(asking.labels) == flat(data.labels[torch.tensor(batches.batch(step))] for step in range(6))
    assert flat(asking.t) == flat(plain.t) and asking.seeds == plain.seeds


def test_a_classifier_learns_and_resumes_bit_for_bit(tmp_path):
    def go(name, steps, resume=False):
        network = small_classifier(dropout=0.3)
        return small_run(tmp_path / name, CrossEntropy(), network, steps=steps, resume=resume, t_min=0.01)

    whole = read_checkpoint(go("whole", 30))
    go("parts", 13)
    parts = read_checkpoint(go("parts", 30, resume=True))
    for want, found in ((whole.weights, parts.weights), (whole.averages, parts.averages)):
        assert want.keys() == found.keys() and all(torch.equal(want[name], found[name]) for name in want)
    trained = small_classifier().eval()
    trained.load_state_dict(whole.weights)
    train = Digits("heldout")
    with torch.no_grad():
        right = trained(train.images[:, None], torch.full((len(train),), 0.01)).argmax(1) == train.labels
    assert float(right.double().mean()) > 0.5  # a tenth by chance


@pytest.mark.parametrize(
    ("network", "data", "dropout", "message"),
    [
        (small_classifier, Unlabelled, None, "CrossEntropy needs labels, and the Unlabelled data have none: give data"),
        (lambda: small_classifier(7), Digits, None, "10 classes and the network has classes=7: with CrossEntropy they"),
        (small_network, Digits, None, "10 classes and the network has classes=None: with CrossEntropy they must"),
        (small_classifier, Digits, 0.1, "CrossEntropy needs every label: leave training.label_dropout=0.1 out"),
    ],
)
def test_a_classifier_that_cannot_be_trained_is_refused(tmp_path, network, data, dropout, message):
    with pytest.raises(ValueError, match=message):
        small_run(tmp_path / "run", CrossEntropy(), network(), data(), label_dropout=dropout)
    assert list(tmp_path.iterdir()) == []
