"""Networks whose features and class probabilities samples are judged by, each with a name that says exactly which.

Images come in [−1, 1] and are rounded to 8 bits first, as they are when written to files, so that samples and data are
judged alike. Only with the Inception network of 2015 is a Fréchet distance called FID; with EfficientNet-Lite0, which
serves where Inception's weights are not at hand, it bears the name of that network.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from psld.evaluation.features.bundled import bundled_classifier
from psld.evaluation.features.efficientnet import load_efficientnet
from psld.evaluation.features.inception import PUBLISHED, load_inception
from psld.evaluation.features.weight_files import load_tensors, weights_file
from psld.files import UnreadableFileError
from psld.files.reading import said
from psld.files.tensors import require_whole_archive
from psld.samplers.divergence import DivergedError

__all__ = [
    "BundledClassifier",
    "EfficientNetFeatures",
    "ExternalFeatures",
    "FeatureExtractor",
    "InceptionFeatures",
    "UntrustedNetworkError",
    "feature_extractor",
]

ROUNDED = "8 bits a channel, rounded to the nearest"
COLOURS = "grey repeated to RGB, transparency on white"


class UntrustedNetworkError(ValueError):
    """A network of features is code of others, and nobody said that it may run; the message names it."""


class FeatureExtractor(nn.Module, ABC):
    """From images to features and, where there is a classifier, logits.

    Attributes:
        identity: name and SHA-256 of the weights; features of two identities are never compared.
        convention: what happens to the pixels before the network.
        distance: what a Fréchet distance of these features is called.
    """

    identity: str
    convention: str
    distance: str = "Fréchet distance"

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError for images (C, H, W) that the network does not take."""

    def of_images(self, images: Float[Tensor, "n C H W"]) -> tuple[Tensor, Tensor | None]:
        """Features (n, d) and logits (n, classes), of images within [−1, 1]: by default of their 8 bits."""
        return self.of_bytes(((images + 1) * 127.5).round().byte())

    @abstractmethod
    def of_bytes(self, pixels: UInt8[Tensor, "n C H W"]) -> tuple[Tensor, Tensor | None]:
        """Features (n, d) and logits (n, classes), of pixels 0 … 255."""

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "n C H W"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n c"] | None]:
        """Features and logits of images in [−1, 1], float64 on the CPU.

        Raises:
            ValueError: images of a shape the network does not take, or features that are not (n, d).
            DivergedError: an image is not finite.
        """
        self.require_shape(tuple(images.shape[1:]))
        if not images.isfinite().all():
            raise DivergedError("an image holds NaN or infinity: its features mean nothing.")
        features, logits = self.of_images(images.clamp(-1, 1))
        if features.ndim != 2 or len(features) != len(images):
            raise ValueError(
                f"{self.identity} gives features of shape {tuple(features.shape)} for {len(images)} images: (n, d) is "
                f"needed."
            )
        return features.double().cpu(), None if logits is None else logits.double().cpu()


class BundledClassifier(FeatureExtractor):
    """The classifier of 8×8 digits or of MNIST that comes with the package.

    Args:
        name: "digits", which takes (1, 8, 8); or "mnist", which takes (1, 28, 28) and, without its border of two
            pixels, (1, 32, 32).
        rounded: look at 8 bits a pixel, as of images in files; otherwise at the values themselves.
    """

    def __init__(self, name: str, rounded: bool = True):
        super().__init__()
        self.network, self.identity = bundled_classifier(name)
        self.shapes = {"digits": [(1, 8, 8)], "mnist": [(1, 28, 28), (1, 32, 32)]}[name]
        self.rounded = rounded
        pixels = ROUNDED if rounded else "values clipped to [−1, 1], not rounded"
        self.convention = f"{pixels}, at their own size{' (32×32 cropped to 28×28)' if name == 'mnist' else ''}"

    def require_shape(self, shape: tuple[int, ...]) -> None:
        if shape not in self.shapes:
            allowed = " or ".join(map(str, self.shapes))
            raise ValueError(f"images are of shape {shape}, and the {self.identity} takes {allowed}.")

    def of_images(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().of_images(images) if self.rounded else self._of_values(images)

    def of_bytes(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._of_values(pixels.float() / 127.5 - 1)

    def _of_values(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        border = (images.shape[-1] - self.shapes[0][-1]) // 2
        features = self.network.features(F.pad(images, (-border,) * 4))
        return features, self.network.head(features)


def _require_colours(shape: tuple[int, ...], network: str) -> None:
    if shape[0] not in (1, 3, 4):
        raise ValueError(
            f"images are of shape {shape}, and {network} takes 1 channel (grey), 3 (RGB) or 4 (RGB with transparency)."
        )


def _colours(pixels: UInt8[Tensor, "n C H W"]) -> UInt8[Tensor, "n 3 H W"]:
    """RGB of grey, of RGB, or of RGBA in front of white."""
    if pixels.shape[1] == 4:
        opacity = pixels[:, 3:].float() / 255
        return (pixels[:, :3] * opacity + 255 * (1 - opacity)).round().byte()
    return pixels.expand(-1, 3, -1, -1)


class EfficientNetFeatures(FeatureExtractor):
    """The 1280 features of EfficientNet-Lite0, trained on ImageNet: of images of any size, from the package alone.

    Distances in them are not FID and not to be compared with published FIDs. There are no logits: a score of ImageNet's
    classes says nothing of most data.

    Raises:
        ModuleNotFoundError: its packages are not installed; the message names the command.
        ValueError: the file of weights is not the published one.
    """

    distance = "Fréchet distance in EfficientNet-Lite0 features"

    def __init__(self) -> None:
        super().__init__()
        self.network, found = load_efficientnet()
        self.identity = f"EfficientNet-Lite0, ImageNet, sha256 {found}"
        self.convention = (
            f"{ROUNDED}; {COLOURS}; resized to 224×224 bicubically with antialiasing, as Pillow does it, and not "
            f"rounded again; (x − 127) / 128"
        )

    def require_shape(self, shape: tuple[int, ...]) -> None:
        _require_colours(shape, "EfficientNet-Lite0")

    def of_bytes(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.network(_colours(pixels)), None


class InceptionFeatures(FeatureExtractor):
    """The 2048 features of FID, and the logits of the Inception Score.

    Args:
        weights: a file, or the address of one; by default the published file, `psld.evaluation.features.inception`'s
            `PUBLISHED`, from its address.
        sha256: what it must hash to; needed for another address than the published one.
        download: fetch the address, if it was not fetched before.
    """

    distance = "FID"

    def __init__(self, weights: str | Path = PUBLISHED.address, sha256: str | None = None, download: bool = False):
        super().__init__()
        self.network, found = load_inception(weights, sha256, download)
        self.identity = f"Inception-2015, sha256 {found}"
        self.convention = (
            f"{ROUNDED}; {COLOURS}; resized to 299×299 bilinearly as TensorFlow 1 does (no half-pixel "
            f"shift, no antialiasing); (x − 128) / 128; logits without bias"
        )

    def require_shape(self, shape: tuple[int, ...]) -> None:
        _require_colours(shape, "Inception")

    def of_bytes(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.network(_colours(pixels))
        return features, self.network.logits(features)


class ExternalFeatures(FeatureExtractor):
    """A network of your own, called with images in [−1, 1], float32, at their own size.

    It returns features (n, d), or a pair of features and logits. All three kinds of file run code of whoever made them:
    TorchScript and ONNX are programs, and a class is imported by its name. So they need to be trusted.

    Args:
        weights: TorchScript (.pt, .ts, .jit), ONNX (.onnx; needs onnxruntime), or .safetensors of `network_class`.
        network_class: import path of a class without arguments, for .safetensors.
        sha256: what the file must hash to.
        download: as for `InceptionFeatures`.
        trust: run the program, or import the class. Nothing is opened, fetched or imported without.

    Raises:
        UntrustedNetworkError: it is not trusted; the message names what would be run.
        ValueError: another kind of file, or a broken one.
        FileNotFoundError: there is no such file.
    """

    def __init__(
        self,
        weights: str | Path,
        network_class: str | None = None,
        sha256: str | None = None,
        download: bool = False,
        trust: bool = False,
    ):
        super().__init__()
        suffix = Path(str(weights)).suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(WRONG_KIND.format(weights))
        if not trust:
            _refuse(weights, suffix, network_class)
        file, found = weights_file(weights, sha256, download)
        if suffix == ".onnx":
            self.network = _ONNX(file)
        elif suffix == ".safetensors":
            self.network = _of_class(network_class, file)
        else:
            self.network = _of_torchscript(file)
        self.identity = f"{Path(str(weights)).name}, sha256 {found}"
        self.convention = f"{ROUNDED}, then [−1, 1] at their own size"

    def of_bytes(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        result = self.network(pixels.float() / 127.5 - 1)
        return (result[0], result[1]) if isinstance(result, tuple | list) else (result, None)


SUFFIXES = (".pt", ".ts", ".jit", ".torchscript", ".onnx", ".safetensors")
WRONG_KIND = (
    "{}: a feature extractor is TorchScript (.pt, .ts, .jit), .onnx or .safetensors, or one of digits, mnist, "
    "efficientnet-lite0, inception."
)


def _refuse(weights: str | Path, suffix: str, network_class: str | None) -> None:
    """Raises for a network that would run code of others, naming it; returns where there is none to run."""
    if suffix == ".safetensors":
        if not network_class:
            return
        program = f"the class {network_class}, imported by that name,"
    else:
        program = f"the {'ONNX' if suffix == '.onnx' else 'TorchScript'} program {weights}"
    raise UntrustedNetworkError(
        f"{program} runs code of whoever made it, so it is not run unless you say that you trust it (trust=True, "
        "--trust)."
    )


def _of_torchscript(file: Path) -> nn.Module:
    try:
        require_whole_archive(file, program=True)
        return torch.jit.load(str(file), map_location="cpu").eval()
    except Exception as error:  # PyTorch's reader of programs raises whatever it comes across
        raise UnreadableFileError(
            f"{file} is not TorchScript, or is broken: {said(error)}. Export it again."
        ) from error


class _ONNX(nn.Module):
    """All outputs of an ONNX model for its one input, on the CPU."""

    def __init__(self, file: Path):
        super().__init__()
        if importlib.util.find_spec("onnxruntime") is None:
            raise ModuleNotFoundError(
                f"{file} is an ONNX model and onnxruntime is not installed: pip install 'psld[onnx]', or export the "
                f"model as TorchScript."
            )
        runtime = importlib.import_module("onnxruntime")
        try:
            self.session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime derives each of its errors from Exception itself
            message = f"{file} is not an ONNX model, or is broken: {said(error)}. Export it again."
            raise UnreadableFileError(message) from error

    def forward(self, x: Tensor) -> list[Tensor] | Tensor:
        outputs = self.session.run(None, {self.session.get_inputs()[0].name: x.cpu().numpy()})
        return [torch.from_numpy(output) for output in outputs] if len(outputs) > 1 else torch.from_numpy(outputs[0])


def _of_class(network_class: str | None, file: Path) -> nn.Module:
    if not network_class or "." not in network_class:
        raise ValueError(f"{file} holds weights alone: name their class, as in my_package.MyNetwork.")
    module, _, name = network_class.rpartition(".")
    try:
        network = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"{network_class} cannot be made: {error}.") from error
    load_tensors(network, file)
    return network.eval().requires_grad_(False)


def feature_extractor(
    name: str,
    shape: tuple[int, ...],
    weights: str | Path | None = None,
    sha256: str | None = None,
    network_class: str | None = None,
    download: bool = False,
    trust: bool = False,
) -> FeatureExtractor:
    """The extractor of that name for images of that shape, in evaluation mode on the CPU.

    Args:
        name: "auto" (digits or mnist by the shape; of other images inception where weights of it are named, otherwise
            efficientnet-lite0), "digits", "mnist", "inception", "efficientnet-lite0", or the file of another network.
        shape: (C, H, W). Images of four channels, with transparency, are flattened onto white first.
        weights: of inception: file or address; None for the published file.
        sha256: what the file of weights must hash to.
        network_class: for .safetensors.
        download: fetch weights from an address.
        trust: as for `ExternalFeatures`; the others run no code of others.

    Raises:
        UntrustedNetworkError: another network, which is not trusted.
        ValueError: images it does not take, weights that are missing, or a file that is wrong.
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: a package that the network comes from is not installed.
    """
    if shape[0] == 4:
        from psld.evaluation.features.flattened import Flattened

        of_colours = (3, *shape[1:])
        return Flattened(feature_extractor(name, of_colours, weights, sha256, network_class, download, trust)).eval()
    if name == "auto":
        known: dict[tuple[int, ...], str] = {(1, 8, 8): "digits", (1, 28, 28): "mnist", (1, 32, 32): "mnist"}
        name = known.get(tuple(shape), "efficientnet-lite0") if weights is None else "inception"
    if name in ("digits", "mnist"):
        given = {"weights": weights, "sha256": sha256, "network_class": network_class, "download": download or None}
        needless = [f"{argument} ({value})" for argument, value in given.items() if value is not None]
        if needless:
            raise ValueError(
                f"these images are judged by the {name} classifier, which comes with its weights: leave out "
                f"{', '.join(needless)}, or name another extractor, such as inception."
            )
        extractor = BundledClassifier(name)
    elif name == "inception":
        extractor = InceptionFeatures(weights or PUBLISHED.address, sha256, download)
    elif name == "efficientnet-lite0":
        extractor = EfficientNetFeatures()
    else:
        extractor = ExternalFeatures(name, network_class, sha256, download, trust)
    extractor.require_shape(tuple(shape))
    return extractor.eval()
