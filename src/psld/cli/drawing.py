"""What the commands that draw images share: a run opened on its device, guidance, pictures in, and what is said."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from jaxtyping import Float
from jsonargparse import Namespace
from torch import Tensor, nn

from psld.cli.arguments import built, completed, data_name, open_data
from psld.distributed import launch
from psld.guidance.classifier_free import ClassifierFreeGuidance
from psld.guidance.classifier_guidance import ClassifierGuidance
from psld.model import Clamped, Model, ScoreModel
from psld.networks import Autocast
from psld.pretrained.published import published_checkpoint
from psld.runs import LoadedClassifier, load, load_classifier
from psld.samplers import Sampler
from psld.samplers.defaults import default_sampler
from psld.specs.spec import class_path

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["Opened", "accelerate", "classifier_for", "clamped", "guided", "opened", "read_pictures", "settings_of"]


class Opened(NamedTuple):
    """A run on its device, and the sampler: the default one where none is named."""

    fabric: Fabric
    model: ScoreModel
    sampler: Sampler
    shape: tuple[int, ...]


def opened(config: Namespace, run: str) -> Opened:
    """The run that a command samples, as its options say.

    Raises:
        ValueError: a number below 1, or what `psld.runs.load` refuses.
    """
    names = [name for name in ("num", "draws", "steps", "batch_size", "devices", "nodes") if name in config]
    if any(config[name] is not None and config[name] < 1 for name in names):
        given = ", ".join(f"--{name} {config[name]}" for name in names)
        raise ValueError(f"{', '.join(f'--{name}' for name in names)} must be at least 1: got {given}.")
    checkpoint = published_checkpoint(run)
    fabric = launch(config.accelerator, config.devices, config.nodes)
    model = load(checkpoint, config.weights, str(fabric.device), built(config, "process"), config.trust)
    accelerate(model, config)
    sampler = built(config, "sampler") or default_sampler(model, config.steps, config.grid)
    return Opened(fabric, model, sampler, model.known_shape())


def accelerate(model: ScoreModel, config: Namespace) -> None:
    """Gives a model the network that --precision and --compile ask for."""
    if config.precision != "32-true":
        dtype = torch.bfloat16 if config.precision == "bf16-mixed" else torch.float16
        model.network = Autocast(cast(nn.Module, model.network), dtype)
    if config.compile:
        model.network = torch.compile(model.network)


def clamped(model: Model, config: Namespace) -> Model:
    """As --clamp says."""
    return Clamped(model) if config.clamp else model


def settings_of(config: Namespace) -> dict[str, Any]:
    """What samples depend on beside the model, the sampler and the grid."""
    return {"clamp": config.clamp, "precision": None if config.precision == "32-true" else config.precision}


# -- guidance ----------------------------------------------------------------------------------------------------------


def guided(
    model: Model, label: int | None, guidance: float | Namespace | None, classifier: LoadedClassifier | None = None
) -> Model:
    """The model guided as --label, --guidance and --classifier say; itself where none of them says anything.

    A number is the scale of classifier-free guidance, or of guidance by the classifier where there is one.

    Raises:
        ValueError: guidance without a label that it needs, a label out of range, a scale that is not finite, a model
            trained without labels, or what the constructor refuses.
    """
    if label is None and guidance is None and classifier is None:
        return model
    if not isinstance(guidance, Namespace):
        kind = ClassifierFreeGuidance if classifier is None else ClassifierGuidance
        scale = 1.0 if guidance is None else guidance
        said = f"--guidance {guidance}" if guidance is not None else "--classifier"
        guidance = Namespace(class_path=class_path(kind), init_args=Namespace(scale=scale))
    else:
        said = f"--guidance {guidance.class_path.rpartition('.')[2]}"
    free = guidance.class_path == class_path(ClassifierFreeGuidance)
    if label is None and (free or guidance.class_path == class_path(ClassifierGuidance)):
        raise ValueError(f"{said} needs a class to guide to: give --label.")
    classes = model.classes
    if free:
        if classes is None:
            raise ValueError(
                f"--label {label} is for runs trained with labels, and this one was not: leave --label out, train with "
                "classes and label_dropout (configs/digits-conditional.yaml), or give psld sample a --classifier."
            )
        if label is not None and not 0 <= label < classes:
            raise ValueError(f"labels are 0 … {classes - 1}: got --label {label}.")
        if not math.isfinite(guidance.init_args.scale):
            raise ValueError(f"--guidance must be finite: got {guidance.init_args.scale}.")
    trained = None if classifier is None else classifier.process
    network = None if classifier is None else classifier.network
    supplied = {"label": label, "null": classes, "classes": classes, "classifier": network, "process": trained}
    return completed(guidance, "--guidance", model=model, **supplied)


def classifier_for(config: Namespace, job: Opened) -> LoadedClassifier | None:
    """The classifier of --classifier, for images of the size that the run makes.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: a run of a score model, or of other images.
    """
    if config.classifier is None:
        return None
    classifier = load_classifier(config.classifier, str(job.fabric.device), config.trust)
    known, shape = classifier.data_shape, job.shape
    if known != shape:
        raise ValueError(
            f"{config.classifier} classifies images of {known[1]}×{known[2]} pixels and {known[0]} channel(s), and the "
            f"run draws {shape[1]}×{shape[2]} and {shape[0]}: train a classifier on images of its size."
        )
    return classifier


# -- pictures ----------------------------------------------------------------------------------------------------------


def read_pictures(
    config: Namespace, shape: tuple[int, ...], what: str = "the run makes", exact: bool = False
) -> Float[Tensor, "n C H W"]:
    """The pictures of a command, the first --num of them; what the arguments mean says `open_data`.

    Raises:
        ValueError: another shape, or fewer than --num.
        FileNotFoundError: nothing is there.
    """
    images = open_data(config.images, shape, what, exact=exact)
    if config.num is not None and config.num > len(images):
        raise ValueError(f"--num {config.num} is more than the {len(images)} images in {data_name(config.images)}.")
    return images.batch(range(config.num or len(images)))
