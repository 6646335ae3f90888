"""The noise-conditional classifier: p(label | z_t) from the way down of NCSN++."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from psld.networks.embeddings import Embedding
from psld.networks.encoder import FIR_TAPS, BlockKind, Encoder
from psld.networks.initialisation import dense
from psld.networks.levels import Combine, ProgressiveInput
from psld.networks.resampling import Resampling

__all__ = ["NoiseClassifier"]


class NoiseClassifier(Encoder):
    """Logits of the label of a noisy state: the encoder of `NCSNpp` and one linear layer on all of its last features.

    Args: as for `NCSNpp`, without those of the output, and
        classes: how many labels; at least 2.

    Raises:
        ValueError: fewer than two classes, or as for `NCSNpp`.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        image_size: int = 32,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 4,
        attention_resolutions: Sequence[int] = (16, 8),
        dropout: float = 0.1,
        embedding: Embedding = "positional",
        time_scale: float = 1.0,
        fourier_scale: float = 16.0,
        skip_rescale: bool = True,
        resampling: Resampling = "average",
        fir_taps: Sequence[float] = FIR_TAPS,
        block: BlockKind = "biggan",
        resample_with_conv: bool = True,
        progressive_input: ProgressiveInput = "none",
        combine: Combine = "sum",
        channels_last: bool = False,
        recompute: bool = False,
    ):
        super().__init__(
            in_channels,
            image_size,
            width,
            multipliers,
            blocks,
            attention_resolutions,
            dropout,
            embedding,
            time_scale,
            fourier_scale,
            skip_rescale,
            resampling,
            fir_taps,
            block,
            resample_with_conv,
            progressive_input,
            combine,
            channels_last,
            recompute,
        )
        if classes < 2:
            raise ValueError(f"classes must be at least 2: got {classes}.")
        self.classes = classes
        size = image_size // 2 ** (len(multipliers) - 1)
        self.logits = dense(self._deepest * size**2, classes, bias=False)
        self._finish()

    def forward(self, z: Float[Tensor, "B *shape"], t: Float[Tensor, " B"]) -> Float[Tensor, "B classes"]:
        """Logits of the labels.

        Args:
            z: (B, k, C, H, W), or (B, k·C, H, W) with the variables folded into the channels.
            t: (B,) times, on the device of z; the time of the state itself, as for the score network.

        Raises:
            ValueError: z or t does not have such a shape.
        """
        x, _, _ = self._encoded(self._folded(z, t), t)
        return self.logits(x.flatten(1))
