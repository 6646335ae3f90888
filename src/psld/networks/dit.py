"""The diffusion transformer DiT (Peebles & Xie, ICCV 2023, arXiv 2212.09748), for images in phase space.

The image is cut into patches of p×p pixels, each a token; blocks of attention and an MLP follow, and what they do is
conditioned on time and label by adaptive layer norm whose last layer starts at zero (adaLN-zero):

    x ← x + α₁ Attention((1 + γ₁) LN(x) + β₁),      x ← x + α₂ MLP((1 + γ₂) LN(x) + β₂)

with (β₁, γ₁, α₁, β₂, γ₂, α₂) a linear function of SiLU(c), c = features of time + features of the label. So every block
is the identity at first, and the last layer, which is zero too, makes the output zero.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from psld.networks.class_conditional import null_class_for_none
from psld.networks.embeddings import PositionalTime, TimeEmbedding
from psld.networks.image_network import ImageNetwork
from psld.networks.initialisation import dense
from psld.networks.sizes import require_division
from psld.specs.arguments import LARGEST_IMAGE, MOST, MOST_CLASSES, WIDEST, shown, whole

__all__ = ["DiT", "DiTBlock", "patch_positions"]


class DiT(ImageNetwork):
    """Score network for images of any size that patches divide, square or not; its output is zero until it is trained.

    Positions are a fixed function of the row and column of a patch (`patch_positions`), so the size of the image is no
    argument: it is that of the state the network is called with.

    Args:
        in_channels: k · C, the channels of all phase-space variables together; None: 3, an RGB image.
        out_channels: r · C, for the r variables that are predicted; None: as many as go in.
        patch_size: side of a patch, in pixels. Half the size is four times the tokens.
        width: numbers in a token; divisible by 4 and by `heads`.
        depth: blocks.
        heads: of the attention.
        mlp_ratio: hidden width of the MLP of a block, in units of `width`.
        time: how the time is embedded; None: PositionalTime(1000).
        classes: how many labels the network can be told; their embedding is added to that of the time. One more row is
            the null class, for no label. None: the network takes no label.

    Raises:
        ValueError: a count is below 1, or a width that does not divide.
    """

    def __init__(
        self,
        *,
        in_channels: int | None = None,
        out_channels: int | None = None,
        patch_size: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        time: TimeEmbedding | None = None,
        classes: int | None = None,
    ):
        super().__init__(in_channels)
        self.out_channels = self._out_channels(out_channels)
        _require_sizes(patch_size, width, depth, heads, mlp_ratio)
        if classes is not None:
            whole("classes", classes, most=MOST_CLASSES)
        self.patch_size, self.width, self.classes = patch_size, width, classes
        self.embedding = (PositionalTime() if time is None else time).of_width(width)
        self.time_in = dense(self.embedding.width, width)
        self.time_out = dense(width, width)
        self.patch_in = dense(self.in_channels * patch_size**2, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads, mlp_ratio) for _ in range(depth))
        self.norm_out = _norm(width)
        self.modulation_out = dense(width, 2 * width, zero=True)
        self.patch_out = dense(width, self.out_channels * patch_size**2, zero=True)
        if classes is not None:  # last, so that all other weights start as they do without it
            self.class_embedding = nn.Embedding(classes + 1, width)

    def forward(
        self, z: Float[Tensor, "B *shape"], t: Float[Tensor, " B"], label: Int64[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B *out_shape"]:
        """Predicts from the state.

        Args:
            z: (B, k, C, H, W), or (B, k·C, H, W) with the variables folded into the channels.
            t: (B,) times, on the device of z.
            label: (B,) in 0 … classes, on the device of z; `classes` itself is the null class, and so is None.

        Returns:
            (B, r, C, H, W) for the first form of z, (B, r·C, H, W) for the second.

        Raises:
            ValueError: z, t or label does not have such a shape, patches do not divide the image, or the network has no
                classes and is given a label.
        """
        image = self._folded(z, t)
        rows, columns = self._patches(image)
        tokens = self.patch_in(functional.pixel_unshuffle(image, self.patch_size).flatten(2).mT)
        tokens = tokens + patch_positions(rows, columns, self.width, device=z.device).to(tokens.dtype)
        condition = self._condition(t, null_class_for_none(label, t, self.classes))
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation_out(condition)[:, None].chunk(2, dim=-1)
        patches = self.patch_out(torch.addcmul(shift, self.norm_out(tokens), 1 + scale))
        output = functional.pixel_shuffle(patches.mT.unflatten(2, (rows, columns)), self.patch_size)
        return self._unfolded(output, z)

    def _patches(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = image.shape[-2:]
        size = self.patch_size
        refusal = f"images of {height}×{width} do not divide into patches of {size}×{size}"
        require_division(height, width, size, refusal, "Use another patch_size, or images of another size.")
        return height // self.patch_size, width // self.patch_size

    def _condition(self, t: Tensor, label: Tensor | None) -> Float[Tensor, "B D"]:
        """SiLU(c), which every block takes: computed once for all."""
        embedded = self.embedding(t).to(self.time_in.weight.dtype)
        features = self.time_out(functional.silu(self.time_in(embedded)))
        return functional.silu(features if label is None else features + self.class_embedding(label))


class DiTBlock(nn.Module):
    """Attention between all tokens and an MLP on each, both in adaLN-zero: the identity until it is trained.

    Args:
        width: numbers in a token.
        heads: of the attention; divides the width.
        mlp_ratio: hidden width of the MLP, in units of `width`.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.heads = heads
        self.norm_attention, self.norm_mlp = _norm(width), _norm(width)
        self.query, self.key, self.value = (dense(width, width) for _ in range(3))
        self.out = dense(width, width)
        self.mlp_in, self.mlp_out = dense(width, hidden), dense(hidden, width)
        self.modulation = dense(width, 6 * width, zero=True)

    def forward(self, x: Float[Tensor, "B N D"], condition: Float[Tensor, "B D"]) -> Float[Tensor, "B N D"]:
        """`condition` is behind its SiLU already."""
        parts = self.modulation(condition)[:, None].chunk(6, dim=-1)
        shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp = parts
        attended = self._attended(torch.addcmul(shift_attention, self.norm_attention(x), 1 + scale_attention))
        x = torch.addcmul(x, gate_attention, attended)
        hidden = self.mlp_in(torch.addcmul(shift_mlp, self.norm_mlp(x), 1 + scale_mlp))
        return torch.addcmul(x, gate_mlp, self.mlp_out(functional.gelu(hidden, approximate="tanh")))

    def _attended(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        return self.out(self._mixed(query, key, value).transpose(1, 2).flatten(2))

    def _mixed(
        self, query: Float[Tensor, "B h N E"], key: Float[Tensor, "B h N E"], value: Float[Tensor, "B h N E"]
    ) -> Float[Tensor, "B h N E"]:
        """softmax(q kᵀ / √E) v; gradients in eval mode go without the fused kernel, which has only the first."""
        if self.training or not torch.is_grad_enabled():
            return functional.scaled_dot_product_attention(query, key, value)
        return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1) @ value


def patch_positions(
    rows: int, columns: int, width: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "N width"]:
    """Sines and cosines of the place of every patch, row by row, as in the published DiT.

    With ω_j = 10000^(−j/n), j = 0 … n−1 and n = width/4, patch (r, c) has the numbers

        [sin(ω_j c), cos(ω_j c), sin(ω_j r), cos(ω_j r)]

    Args:
        rows: of patches.
        columns: of patches; N = rows · columns.
        width: how many numbers a patch gets; divisible by 4.
        device: where they are wanted.
    """
    count = width // 4
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(count, dtype=torch.float64, device="cpu") / count)
    across, down = (torch.arange(n, dtype=torch.float64, device="cpu")[:, None] * frequencies for n in (columns, rows))
    across, down = (torch.cat([angles.sin(), angles.cos()], dim=1) for angles in (across, down))
    place = torch.cat([across.repeat(rows, 1), down.repeat_interleave(columns, dim=0)], dim=1)
    return place.float().to(device)


def _norm(width: int) -> nn.LayerNorm:
    """Layer norm without weights of its own: scale and shift come from the condition."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _require_sizes(patch_size: int, width: int, depth: int, heads: int, mlp_ratio: float) -> None:
    whole("patch_size", patch_size, most=LARGEST_IMAGE)
    whole("width", width, most=WIDEST)
    whole("depth", depth, most=MOST)
    whole("heads", heads, most=WIDEST)
    if width % 4 or width % heads:
        raise ValueError(f"width must be divisible by 4 and by heads={heads}: got {width}.")
    if not 1 / width <= mlp_ratio <= MOST:
        raise ValueError(f"mlp_ratio must be positive, and at most {MOST}: got {shown(mlp_ratio)}.")
