"""Options that several commands have, each defined once: data, models, samplers, pictures.

A part of a command that a user may write himself is named by its class: one of psld's by its name (`--sampler RK45`),
one of one's own by its import path (`--sampler my_package.MySampler`), with arguments of its constructor as options
(`--sampler.rtol 1e-4`). Data can also be named by a path.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace

from psld.cli.kinds import Accelerator, Count, Devices, Evaluations, Finite, Number, Seed, Text, plain
from psld.cli.messages import refusal
from psld.data import ImageData
from psld.data.decoding import MODES
from psld.data.opening import holds_mnist, open_images
from psld.guidance import classifier_free, classifier_guidance  # noqa: F401  # so that they have short names
from psld.model import ModelWrapper
from psld.processes import LinearProcess
from psld.samplers import Sampler
from psld.samplers.catalogue import CATALOGUE
from psld.samplers.grids import NAMES
from psld.specs import build, listed_names, resolve
from psld.specs.arguments import side_or_sides
from psld.training.settings import Precision

__all__ = [
    "CommandParser",
    "add_data_argument",
    "add_label_arguments",
    "add_model_arguments",
    "add_picture_arguments",
    "add_run_argument",
    "add_sampling_arguments",
    "built",
    "command_parser",
    "completed",
    "data_name",
    "open_data",
    "size_of",
]

PATHS = (
    "a path (image, folder or .zip of images, .npz, folder of MNIST's files) or a class (Digits, CIFAR10, "
    "my_package.MyData)"
)


class CommandParser(ArgumentParser):
    """A parser that says in one sentence what is wrong."""

    _arguments: Sequence[str] = ()

    def parse_args(self, args: Sequence[str] | None = None, *given: Any, **options: Any) -> Namespace:
        """As jsonargparse's; remembers the arguments, for the message. Numbers are plain ones, which YAML can write."""
        self._arguments = list(sys.argv[1:] if args is None else args)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="jsonargparse")  # of what its next version does otherwise
            config = super().parse_args(args, *given, **options)  # pyright: ignore[reportCallIssue]
        for key, value in list(config.items()):
            config[key] = plain(value)
        return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program with exit code 2 and one line."""
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"{self.prog}: error: {refusal(self, message, self._arguments)}\n")


def command_parser(command: str, description: str = "", epilog: str = "") -> CommandParser:
    """The parser of `psld COMMAND`, with examples below the options."""
    options = CommandParser(prog=f"psld {command}", description=description, allow_abbrev=False)
    options.epilog = epilog
    return options


# -- data --------------------------------------------------------------------------------------------------------------


def add_data_argument(options: ArgumentParser, name: str, help: str, required: bool = False) -> None:
    """Adds an argument that names images, for `open_data`.

    Args:
        options: of the command.
        name: "--against", or without dashes for a positional argument; arguments of a class are `--against.split`.
        help: what the images are for, without how they are named.
        required: as for any option; positional arguments always are.
    """
    kind: Any = ImageData | Text | None
    if name.startswith("-"):
        options.add_argument(name, type=kind, required=required, default=None, help=f"{help}: {PATHS}")
        return
    action: Any = options.add_argument(name, type=ImageData | Text, help=f"{help}: {PATHS}; with --{name}.split …")
    prefix = f"--{name}"  # jsonargparse knows arguments of a class for options only
    action.get_option_string_base = lambda given: prefix if given and given.startswith(f"{prefix}.") else None


def open_data(
    source: str | Namespace,
    shape: Sequence[int] | None = None,
    what: str = "the run makes",
    labelled: bool = False,
    exact: bool = False,
) -> ImageData:
    """The images that an argument of `add_data_argument` names.

    Args:
        source: the parsed value: a path, or a class with its arguments.
        shape: (C, H, W) that the images must have. MNIST's files come with the border that makes them so large, image
            files in so many channels, and cut and made smaller where they are larger (`psld.data.opening.open_images`).
        what: has that shape, for the message.
        labelled: labels are of use: read those of an .npz file.
        exact: image files must have that size, and none is cut or made smaller.

    Raises:
        FileNotFoundError: neither a path that exists nor a class.
        ValueError: images of another shape, or what opening them refuses.
    """
    if isinstance(source, str):
        images = _open_path(source, shape, labelled, exact)
    else:
        images = build(source.as_dict(), trust=True, where="the data")
    if shape is not None and images.image_shape != tuple(shape):
        raise ValueError(
            f"{data_name(source)} holds images of {size_of(images.image_shape)}, and {what} {size_of(shape)}: convert "
            "them first."
        )
    return images


def data_name(source: str | Namespace) -> str:
    """What a person calls the data: the path, or the class with the arguments that are not its defaults."""
    if isinstance(source, str):
        return source
    parameters = inspect.signature(resolve(source.class_path, trust=True)).parameters
    own = source.get("init_args", Namespace()).as_dict()
    given = [f"{key}={value!r}" for key, value in own.items() if value != parameters[key].default]
    name = source.class_path.rpartition(".")[2]
    return f"{name}({', '.join(given)})" if given else name


def size_of(shape: Sequence[int]) -> str:
    """(1, 8, 8) as words."""
    channels, height, width = shape
    colours = {1: "grey", 3: "colour", 4: "colour with transparency"}
    return f"{height}×{width} {colours.get(channels, f'with {channels} channels')}"


def _open_path(source: str, shape: Sequence[int] | None, labelled: bool, exact: bool) -> ImageData:
    if not Path(source).exists() and not re.search(r"[/\\]|\.\w{2,4}$", source):
        names = [path.rpartition(".")[2] for path in listed_names() if path.startswith("psld.data.")]
        near = difflib.get_close_matches(source, names, n=2) or [n for n in names if n.lower() == source.lower()]
        advice = f"did you mean {' or '.join(near)}?" if near else f"classes of data are {', '.join(names)}."
        raise FileNotFoundError(f"{source} is neither a file, nor a folder, nor a class of data: {advice}")
    if shape is None or len(shape) != 3 or (holds_mnist(source) and shape[-1] not in (28, 32)):
        return open_images(source, labelled=labelled)
    channels, height, width = shape
    if Path(source).suffix == ".npz" or channels not in MODES:
        return open_images(source, labelled=labelled)  # which has another size or not; the caller says it
    size = None if exact else side_or_sides(height, width)
    return open_images(source, size, labelled, channels)


# -- runs and samplers -------------------------------------------------------------------------------------------------


def add_run_argument(options: ArgumentParser) -> None:
    """RUN."""
    options.add_argument("run", type=Text, help="run, checkpoint or weights folder, or a published name")


def add_label_arguments(options: ArgumentParser, label: str) -> None:
    """--label, with this help, and --guidance: of `psld.cli.drawing.guided`."""
    options.add_argument("--label", type=Number | None, default=None, help=label)
    action: Any = options.add_argument(
        "--guidance",
        type=Finite | ModelWrapper | None,
        default=None,
        help="scale of the guidance to --label: 1, the default, is the class itself, 0 ignores it, 2 overdoes it; or a "
        "class with its arguments: ClassifierFreeGuidance, ClassifierGuidance, or one of your own",
    )
    action.sub_add_kwargs = {"skip": {"model", "label", "null", "classes", "classifier", "process"}}


def add_sampling_arguments(options: ArgumentParser) -> None:
    """What images are drawn with: sampler, process, grid, steps, seed, weights, devices."""
    options.add_subclass_arguments(
        Sampler,
        "sampler",
        required=False,
        help=f"class with its arguments: {', '.join(entry.name for entry in CATALOGUE)}, or one of your own (default: "
        "predictor and corrector in σ-space, from the Gaussian of the data where that is known)",
    )
    options.add_argument(
        "--grid",
        type=Text,
        default="best",
        help=f"{', '.join(NAMES)}, or a .json file; best: derived from the mean and spectrum of the data where known",
    )
    options.add_argument(
        "--steps", type=Evaluations, default=20, help="network evaluations per sample, the last denoising included"
    )
    options.add_argument("--seed", type=Seed, default=0, help="seed of the first image")
    options.add_argument("--batch_size", type=Count, default=256, help="images at a time, on each device")
    options.add_argument("--devices", type=Devices, default=1, help="devices (processes) on each node")
    options.add_argument("--nodes", type=Devices, default=1, help="machines, each started with the same command")
    options.add_argument(
        "--precision", type=Precision, default="32-true", help="16 bits inside the network, where the hardware has them"
    )
    options.add_argument("--compile", type=bool, default=False, help="torch.compile the network first")
    add_diverged_argument(options)
    add_model_arguments(options)


def add_diverged_argument(options: ArgumentParser) -> None:
    """--allow_diverged: of every command that draws."""
    options.add_argument(
        "--allow_diverged",
        action="store_true",
        help="accept samples that diverged (not finite, or far outside what the process allows); else they fail it",
    )


def add_model_arguments(options: ArgumentParser) -> None:
    """Which model of a run is asked, and where: process, weights, clamp, accelerator, trust."""
    options.add_subclass_arguments(
        LinearProcess,
        "process",
        required=False,
        help="another process than the run's, for a run that predicts the denoiser: psld.CLD …",
    )
    options.add_argument("--weights", type=Literal["ema", "online"], default="ema", help="averaged weights or the last")
    options.add_argument(
        "--clamp", type=bool, default=True, help="hold x̂₀ within [−1, 1]; false for the paper's convention"
    )
    options.add_argument("--accelerator", type=Accelerator, default="cpu", help="cpu, cuda, mps or auto")
    options.add_argument(
        "--trust",
        action="store_true",
        help="run whatever code the folder names, not only psld's: networks of one's own",
    )


def add_picture_arguments(options: ArgumentParser, degraded: str = "") -> None:
    """Run, pictures, OUT, draws, and what they are drawn with; --degraded where there is something it means."""
    add_run_argument(options)
    add_data_argument(options, "images", "pictures to start from")
    options.add_argument("--out", type=Text, required=True, help="folder to write: new, or of the same command before")
    options.add_argument("--num", type=Count | None, default=None, help="how many of the images, the first; or all")
    options.add_argument("--draws", type=Count, default=4, help="draws of each image")
    if degraded:
        options.add_argument("--degraded", type=bool, default=False, nargs="?", const=True, help=degraded)
    add_sampling_arguments(options)
    options.set_defaults({"steps": 100, "grid": "log-snr"})
    options.set_defaults({"sampler": {"class_path": "Ancestral" if degraded else "Exponential"}})


def built(config: Namespace, name: str) -> Any:
    """The object that an option names by its class; None where the option was left out.

    Raises:
        ValueError: what its constructor refuses.
    """
    given = config.get(name)
    return None if given is None else build(given.as_dict(), trust=True, where=f"--{name}")


def completed(named: Namespace, option: str, **supplied: Any) -> Any:
    """The object of a class that needs more than a command line can say: the constructor gets what it asks for.

    Args:
        named: a class and its arguments, as parsed.
        option: that names it, for messages.
        supplied: arguments by their names; None for what there is not. Those that it does not have are left out.

    Raises:
        ValueError: the constructor needs what is not there, or refuses an argument.
    """
    make = resolve(named.class_path, trust=True, where=option)
    wanted = inspect.signature(make).parameters
    given = build(named.get("init_args", Namespace()).as_dict(), trust=True, where=option)
    given |= {name: value for name, value in supplied.items() if name in wanted and value is not None}
    required = [name for name, parameter in wanted.items() if parameter.default is inspect.Parameter.empty]
    if missing := [f"--{name}" for name in required if name not in given]:
        raise ValueError(f"{option} {make.__name__} needs {', '.join(missing)}.")
    return make(**given)
