"""`psld evaluate`: how good the samples of a run, or images that are there already, are; and speed against quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace

from psld.cli.arguments import (
    CommandParser,
    add_data_argument,
    add_label_arguments,
    add_sampling_arguments,
    built,
    command_parser,
    data_name,
)
from psld.cli.drawing import accelerate, guided
from psld.cli.kinds import Evaluations, Several, Text
from psld.cli.measuring import (
    add_extractor_arguments,
    chosen_extractor,
    known_or_opened,
    measured,
    opened,
    statistics_file,
)
from psld.comparison import Cell, DataReference, cells
from psld.comparison.sweeping import require_known
from psld.distributed import launch
from psld.evaluation.statistics import ImageStatistics
from psld.files import file_sha256, locked
from psld.jobs.evaluating import (
    Evaluated,
    Subject,
    evaluate,
    evaluate_images,
    random_choice,
    summary,
    write_sweep,
)
from psld.model import Clamped, Model
from psld.pretrained.published import with_place_for_results
from psld.runs import load, load_data
from psld.samplers.defaults import default_sampler
from psld.samplers.divergence import refusal
from psld.specs import spec_of
from psld.training import latest_checkpoint
from psld.training.checkpoint import has_checkpoint, weight_files

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["run"]

DESCRIPTION = """Judge the samples of a run, or images that are there already, by a data set: Fréchet distance (FID with
Inception's features), kernel distance (KID), precision, recall, density, coverage, classifier score (Inception Score).
Beside the distance stand its 95 % interval and its floor: the distance of as many real images, from --floor or from
--against itself. Colour images are judged in features of EfficientNet-Lite0 unless Inception is named.

Samples are drawn a batch at a time and not kept. Each result is a JSON file in RUN/evaluation, named by a hash of the
weights and of every setting; what is there is not computed again. --sweep goes over samplers and budgets and draws a
plot; a killed sweep goes on where it was when the same command is given again. A result some of whose
samples diverged says so, and the command fails in the end, unless --allow_diverged. With --label, samples of that class
are judged by data of that class, which need labels; without, a run trained with labels is told none."""

EPILOG = """example: psld evaluate runs/mine --num 500;
psld evaluate runs/demo --against Digits --sampler PredictorCorrector --grid optimised --steps 10;
a protocol, against statistics of psld stats: psld evaluate runs/cifar --against cifar10.npz --protocol 50k
--extractor inception --extractor_weights pt_inception.pth; held-out images instead of samples, which gives the floor:
psld evaluate Digits --run.split heldout --against Digits; speed against quality: psld evaluate runs/demo --against
Digits --floor Digits --floor.split heldout --sweep --nfe 5 10 20 --only Projected paper-quadratic; one class of a run
trained with labels: psld evaluate psld-digits-conditional --label 3 --guidance 2 --against Digits --out runs/threes"""

PROTOCOLS = {"10k": 10_000, "50k": 50_000}


def parser() -> CommandParser:
    """Options of `psld evaluate`."""
    options = command_parser("evaluate", DESCRIPTION, EPILOG)
    add_data_argument(options, "run", "run, checkpoint or published name; or images in place of samples")
    add_data_argument(
        options, "--against", "what they are judged by (of a run: its own training data), or statistics of psld stats"
    )
    add_data_argument(
        options, "--floor", "held-out data or their statistics, samples at their best; without, part of --against"
    )
    options.add_argument(
        "--protocol", type=Literal["10k", "50k"] | None, default=None, help="10,000 or 50,000 samples, exactly"
    )
    options.add_argument(
        "--num",
        type=Several | None,
        default=None,
        help="how many samples (10000; of images, all, or a random choice of them by --seed)",
    )
    options.add_argument("--out", type=Text | None, default=None, help="folder of the results; default RUN/evaluation")
    add_label_arguments(options, "class to judge by data of that class, of a run trained with labels, or of images")
    options.add_argument("--sweep", type=bool, default=False, nargs="?", const=True, help="samplers × --nfe")
    options.add_argument(
        "--nfe", type=Evaluations, nargs="+", default=[5, 10, 20, 50], help="of --sweep: evaluations a sample"
    )
    options.add_argument("--only", type=Text, nargs="+", default=[], help="of --sweep: samplers whose name holds one")
    add_extractor_arguments(options)
    add_sampling_arguments(options)
    return options


def run(arguments: list[str]) -> int:
    """Evaluate what is not evaluated yet; returns 0."""
    config = parser().parse_args(arguments)
    _check(config)
    fabric = launch(config.accelerator, config.devices, config.nodes)
    if isinstance(config.run, str):
        checkpoint = with_place_for_results(config.run, config.out)
        if has_checkpoint(checkpoint):
            config.against = _own_data(checkpoint, config.trust) if config.against is None else config.against
            return _evaluate_run(config, checkpoint, fabric)
        if config.sweep:
            latest_checkpoint(checkpoint)  # says that there is none, and where there are some
    if config.against is None:
        raise ValueError(f"--against is missing: {data_name(config.run)} are images, and what are they judged by?")
    return _evaluate_images(config, fabric)


def _own_data(checkpoint: Path, trust: bool) -> Namespace:
    """The training data of a run, as an option would name them.

    Raises:
        ValueError: they are not known, or not where they were.
    """
    try:
        spec = spec_of(load_data(checkpoint, trust)).config()
    except (OSError, ValueError) as error:
        raise ValueError(f"--against is missing, and the run's own data are not there: {error}") from error
    return Namespace(class_path=spec["class_path"], init_args=Namespace(spec.get("init_args", {})))


def _check(config: Namespace) -> None:
    """Refuses what makes no sense together."""
    if config.protocol is not None:
        if config.num not in (None, PROTOCOLS[config.protocol]):
            raise ValueError(f"--protocol {config.protocol} fixes the number of samples: leave out --num {config.num}.")
        config.num = PROTOCOLS[config.protocol]
    if config.out is not None and Path(config.out).is_file():
        raise NotADirectoryError(f"--out {config.out} is a file: give the folder of the results.")
    if min(config.nfe) < 3:
        raise ValueError(f"--nfe must be at least 3: got {config.nfe}.")
    for option in ("against", "floor") if config.label is not None else ():
        if file := statistics_file(config[option]):
            raise ValueError(
                f"--label {config.label} needs the images behind {file}, with their labels: statistics "
                f"do not say which class an image is of. Give the data themselves to --{option}."
            )


def _reference(config: Namespace, shape: tuple[int, ...], fabric: Fabric) -> DataReference:
    """Measures the data, or reads their statistics; refuses what does not fit before anything is drawn."""
    extractor = chosen_extractor(config, shape, fabric)
    given = [source for source in (config.against, config.floor) if source is not None]
    found = [known_or_opened(source, shape, extractor, config.label) for source in given]  # all, before one is measured
    data, floor = ([measured(data, config, extractor, fabric) for data in found] + [None])[:2]
    assert data is not None  # --against is given, or the data of the run
    return DataReference(extractor, data, floor, keep=config.keep, device=fabric.device)


def _evaluate_images(config: Namespace, fabric: Fabric) -> int:
    if config.guidance is not None:
        raise ValueError(f"--guidance {config.guidance} is for samples of a run, and there is none: leave it out.")
    file = statistics_file(config.against)
    shape = ImageStatistics.load(file).measurement.image_shape if file else None
    images, name = opened(config.run, shape, config.label)
    count = config.num or len(images)
    if len(images) < count:
        raise ValueError(f"{name} holds {len(images)} images, and {count} are asked for.")
    beside = Path(config.run) if isinstance(config.run, str) else Path("runs")
    folder = Path(config.out) if config.out else (beside.parent if beside.is_file() else beside) / "evaluation"
    with locked(folder, "results", fabric):
        reference = _reference(config, images.image_shape, fabric)
        chosen = random_choice(len(images), count, config.seed)
        result, path = evaluate_images(images, name, chosen, config.batch_size, reference, folder, fabric)
    if fabric.is_global_zero:
        print(f"{summary(result)}\nWritten to {path}.")
    return 0


def _evaluate_run(config: Namespace, checkpoint: Path, fabric: Fabric) -> int:
    model = load(checkpoint, config.weights, str(fabric.device), built(config, "process"), config.trust)
    accelerate(model, config)
    judged = guided(model, config.label, config.guidance)
    subject = Subject(
        Clamped(judged) if config.clamp else judged,
        name=config.run,
        told=_told(config),
        identity=_identity(config, weight_files(latest_checkpoint(checkpoint), config.weights)),
        num=config.num or PROTOCOLS["10k"],
        seed=config.seed,
        batch_size=config.batch_size,
    )
    wanted = _cells(config, subject.model)
    for cell in wanted:
        cell.build(None)  # a grid that cannot be made is refused before anything is measured
    folder = Path(config.out) if config.out else checkpoint / "evaluation"
    with locked(folder, "results", fabric):
        reference = _reference(config, model.known_shape(), fabric)
        results = []
        for found in evaluate(subject, wanted, reference, folder, fabric):
            results.append(found)
            if fabric.is_global_zero and not config.sweep:
                print(f"{summary(found.result)}\n{'Known already: see' if found.known else 'Written to'} {found.path}.")
        if fabric.is_global_zero and config.sweep:
            name = "sweep" if config.label is None else f"sweep-class-{config.label}-guidance-{_guidance(config)}"
            print(write_sweep(subject, results, reference, folder, name))
            print(f"{len(results)} results in {folder}. Look at {folder / f'{name}.png'}")
    if not config.allow_diverged:
        refuse_diverged([found for found in results if found.result.get("diverged")])
    return 0


def refuse_diverged(results: Sequence[Evaluated]) -> None:
    """Raises DivergedError if there are any: results some of whose samples diverged."""
    if results:
        seeds = sorted(seed for found in results for seed in found.result["diverged"])
        named = ", ".join(found.path.name for found in results)
        raise refusal(seeds, f"They were judged with the others ({named})")


def _cells(config: Namespace, model: Model) -> list[Cell]:
    """The one of the options, or those of the sweep."""
    if not config.sweep:
        sampler = built(config, "sampler") or default_sampler(model, config.steps, config.grid)
        return [Cell.of(sampler, config.grid, model.process, config.steps, spectrum=model.spectrum)]
    known = [cell for nfe in config.nfe for cell in cells(model.process, nfe, model) if not cell.judged]
    require_known(config.only, [cell.label for cell in known])
    return [cell for cell in known if not config.only or any(part in cell.label for part in config.only)]


def _identity(config: Namespace, weights: list[Path]) -> dict[str, Any]:
    """What tells the model from others; of the weights their hash, wherever the folder is."""
    known = {"checkpoint": file_sha256(*weights), **{name: config[name] for name in ("weights", "precision", "clamp")}}
    if config.label is None and config.guidance is None:
        return known
    guidance = config.guidance.as_dict() if isinstance(config.guidance, Namespace) else config.guidance
    return known | {"label": config.label, "guidance": 1.0 if guidance is None else guidance}


def _guidance(config: Namespace) -> str:
    """The scale, said or not, or the class with its arguments."""
    given = 1.0 if config.guidance is None else config.guidance
    return data_name(given) if isinstance(given, Namespace) else f"{given:g}"


def _told(config: Namespace) -> str:
    """What the network is told, to be added to what samples are called."""
    return "" if config.label is None else f", class {config.label}, guidance {_guidance(config)}"
