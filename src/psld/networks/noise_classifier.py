"""The noise-conditional classifier: p(label | z_t) from the way down of NCSN++."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from psld.networks.embeddings import PositionalTime, TimeEmbedding
from psld.networks.encoder import Encoder, LevelChange
from psld.networks.initialisation import dense
from psld.networks.levels import ResidualInput, SkipInput
from psld.networks.resampling import FIR
from psld.specs.arguments import MOST_CLASSES, whole

__all__ = ["NoiseClassifier"]


class NoiseClassifier(Encoder):
    """Logits of the label of a noisy state: the encoder of `NCSNpp` and one linear layer on all of its last features.

    Args: those of `Encoder`, with `time` None for PositionalTime(1), and
        classes: how many labels; at least 2.

    Raises:
        ValueError: fewer than two classes, or as for `NCSNpp`.
    """

    def __init__(
        self,
        *,
        classes: int,
        in_channels: int | None = None,
        image_size: int | Sequence[int] | None = None,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 4,
        attention_resolutions: Sequence[int] | None = None,
        dropout: float = 0.1,
        time: TimeEmbedding | None = None,
        skip_rescale: bool = True,
        resampling: FIR | None = None,
        level_change: LevelChange = "block",
        progressive_input: SkipInput | ResidualInput | None = None,
        channels_last: bool = False,
        recompute: bool = False,
    ):
        whole("classes", classes, least=2, most=MOST_CLASSES)
        super().__init__(
            in_channels=in_channels,
            image_size=image_size,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            attention_resolutions=attention_resolutions,
            dropout=dropout,
            time=PositionalTime(1.0) if time is None else time,
            skip_rescale=skip_rescale,
            resampling=resampling,
            level_change=level_change,
            progressive_input=progressive_input,
            channels_last=channels_last,
            recompute=recompute,
        )
        self.classes = classes
        height, width = (side // 2 ** (len(multipliers) - 1) for side in self._sides)
        self.logits = dense(self._deepest * height * width, classes, bias=False)
        self._finish()

    def forward(self, z: Float[Tensor, "B *shape"], t: Float[Tensor, " B"]) -> Float[Tensor, "B classes"]:
        """Logits of the labels.

        Args:
            z: (B, k, C, H, W), or (B, k·C, H, W) with the variables folded into the channels.
            t: (B,) times, on the device of z; the time of the state itself, as for the score network.

        Raises:
            ValueError: z or t does not have such a shape.
        """
        x, _, _ = self._encoded(self._sized(z, t), t)
        return self.logits(x.flatten(1))
