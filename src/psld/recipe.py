"""The complete recipe: every SDE with a given stationary law, by a diffusion matrix and a curl matrix.

For a target p_s(z) ∝ exp(−H(z)), any positive semi-definite D(z) and skew-symmetric Q(z),

    dz = [ −(D + Q) ∇H + τ ] dt + √(2D) dw,      τ_i = Σ_j ∂/∂z_j (D_ij + Q_ij)

leaves p_s stationary (Ma, Chen & Fox, 2015; Pandey & Mandt, ICCV 2023, eq. 5). `Recipe` is that statement for any
functions; `LinearRecipe` is the case that diffusion models are trained with: D and Q constant, H quadratic.
Derivations: docs/recipe.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from psld.specs import SpecifiedValue

__all__ = ["LinearRecipe", "Matrix", "Recipe", "RecipeError", "RecipeReport"]

Matrix = Tensor | Sequence[Sequence[float]]
"""A k×k (or k×r) matrix: a tensor or nested lists."""

TOLERANCE = 1e-9  # relative to the largest entry; what users type has rounding in it, what they mistake has more


class RecipeError(ValueError):
    """The matrices or the SDE do not form a recipe; the message says by how much and why."""


@dataclass(frozen=True)
class RecipeReport:
    """What `LinearRecipe.check()` found. `print(report)` is for people, the fields and `to_dict()` for programs.

    Rates (`spectral_gap`, eigenvalues) are per unit of ∫β dt. `damping` is "over" (real rates), "critical" (real rates
    that coincide), "under" (some oscillate), or None where there is no law to relax to.
    """

    variables: int
    stationary: bool
    ergodic: bool
    reasons: tuple[str, ...] = ()
    diffusion_min_eigenvalue: float | None = None
    curl_asymmetry: float | None = None
    lyapunov_residual: float | None = None
    reached_variables: int | None = None
    eigenvalues: tuple[complex, ...] = ()
    spectral_gap: float | None = None
    damping: str | None = None

    @property
    def ok(self) -> bool:
        """Stationary and ergodic: the process forgets its start and converges to the target."""
        return self.stationary and self.ergodic

    def to_dict(self) -> dict:
        """The fields as plain numbers and strings, ready for JSON (an eigenvalue becomes [real, imaginary])."""
        return {**asdict(self), "eigenvalues": [[v.real, v.imag] for v in self.eigenvalues]}

    def __str__(self) -> str:
        rows = [("variables", str(self.variables), "")]
        if self.diffusion_min_eigenvalue is not None:
            rows.append(
                ("diffusion matrix D", "positive semi-definite", f"min λ = {self.diffusion_min_eigenvalue:.3g}")
            )
        if self.curl_asymmetry is not None:
            rows.append(("curl matrix Q", "skew-symmetric", f"max |Q + Qᵀ| = {self.curl_asymmetry:.3g}"))
        residual = "" if self.lyapunov_residual is None else f"max |A S + S Aᵀ + 2D| = {self.lyapunov_residual:.3g}"
        rows.append(("stationary", _yes(self.stationary), residual))
        reached = (
            "" if self.reached_variables is None else f"noise reaches {self.reached_variables} of {self.variables}"
        )
        rows.append(("ergodic", _yes(self.ergodic), reached))
        if self.spectral_gap is not None:
            rows.append(("spectral gap", f"{self.spectral_gap:.6g}", "slowest rate, per unit of ∫β dt"))
        if self.damping is not None:
            rates = ", ".join(_rate(v) for v in self.eigenvalues)
            rows.append(("damping", self.damping, f"eigenvalues of A: {rates}"))
        lines = [f"{name:<20}{value:<24}{detail}".rstrip() for name, value, detail in rows]
        return "\n".join(lines + [f"  why: {reason}" for reason in self.reasons])


class LinearRecipe(SpecifiedValue):
    """D and Q constant, H(z) = ½ zᵀ S⁻¹ z: a linear SDE dz = A z db + √(2D) dw with stationary law N(0, S).

    Args:
        diffusion: D, k×k, symmetric positive semi-definite.
        curl: Q, k×k, skew-symmetric.
        covariance: S, k×k, symmetric positive definite; the same in every data dimension.

    Attributes:
        k: number of phase-space variables.
        drift_matrix: A = −(D + Q) S⁻¹.

    Raises:
        RecipeError: a matrix has the wrong shape, holds NaN, or lacks its property; the message carries the number.

    Source: Pandey & Mandt (ICCV 2023), eq. 5 and 6.
    """

    constructors = ("from_sde",)
    """Class methods that a configuration may name in place of the class."""

    def __init__(self, diffusion: Matrix, curl: Matrix, covariance: Matrix):
        self.diffusion = _square("diffusion", diffusion)
        self.k = len(self.diffusion)
        self.curl = _square("curl", curl, self.k)
        self.covariance = _square("covariance", covariance, self.k)
        _require_semidefinite(self.diffusion)
        _require_skew(self.curl)
        _require_symmetric("covariance", self.covariance)
        smallest = float(torch.linalg.eigvalsh(self.covariance)[0])
        if smallest <= 0.0:
            raise RecipeError(f"covariance must be positive definite: its smallest eigenvalue is {smallest:.6g}.")
        self.drift_matrix = -torch.linalg.solve(self.covariance, self.diffusion + self.curl, left=False)

    def check(self) -> RecipeReport:
        """Is the law stationary, is it the only one, how fast is it approached, and if not, why not."""
        a, d = self.drift_matrix, self.diffusion
        residual = float((a @ self.covariance + self.covariance @ a.T + 2 * d).abs().max())
        reached = _controllable_dimension(a, d)
        eigenvalues = torch.linalg.eigvals(a)
        ergodic = reached == self.k
        reasons = () if ergodic else (_why_not_ergodic(self.k, reached, d),)
        return RecipeReport(
            variables=self.k,
            stationary=residual <= TOLERANCE * max(1.0, float(d.abs().max())),
            ergodic=ergodic,
            reasons=reasons,
            diffusion_min_eigenvalue=float(torch.linalg.eigvalsh(d)[0]),
            curl_asymmetry=float((self.curl + self.curl.T).abs().max()),
            lyapunov_residual=residual,
            reached_variables=reached,
            eigenvalues=tuple(complex(v) for v in eigenvalues.tolist()),
            spectral_gap=max(0.0, float(-eigenvalues.real.max())) if ergodic else 0.0,
            damping=_damping(self) if ergodic else None,
        )

    def reversed(self) -> LinearRecipe:
        """The time reversal of the stationary process: Q → −Q."""
        return LinearRecipe(self.diffusion, -self.curl, self.covariance)

    @classmethod
    def from_sde(cls, drift: Matrix, noise: Matrix, covariance: Matrix | None = None) -> LinearRecipe:
        """Recognise dz = drift · z dt + noise · dw as a recipe.

        Args:
            drift: A, k×k.
            noise: G, k×r, so that D = ½ G Gᵀ.
            covariance: the claimed stationary covariance S, k×k; solved from the Lyapunov equation when None.

        Raises:
            RecipeError: there is no stationary law (an eigenvalue of A does not decay), it is degenerate, or the
                claimed S is not stationary; the message states the residual of A S + S Aᵀ + G Gᵀ = 0.
        """
        a = _square("drift", drift)
        g = _matrix("noise", noise)
        if len(g) != len(a):
            raise RecipeError(
                f"noise must have {len(a)} rows, one a variable of the drift: got shape {tuple(g.shape)}."
            )
        d = 0.5 * g @ g.T
        s = _solve_lyapunov(a, d) if covariance is None else _square("covariance", covariance, len(a))
        _require_symmetric("covariance", s)
        residual = a @ s + s @ a.T + 2 * d
        worst = float(residual.abs().max())
        if worst > TOLERANCE * max(1.0, float(s.abs().max() * a.abs().max()), float(d.abs().max())):
            i, j = divmod(int(residual.abs().argmax()), len(a))
            raise RecipeError(
                f"N(0, covariance) is not stationary: max |A S + S Aᵀ + G Gᵀ| = {worst:.6g} at entry ({i}, {j}): "
                f"the covariance of variables {i} and {j} keeps {'growing' if residual[i, j] > 0 else 'falling'}. "
                "Leave covariance out to have it solved for."
            )
        q = -(a @ s + d)
        return cls(d, 0.5 * (q - q.T), s)


class Recipe:
    """The general recipe: H(z), D(z) and Q(z) are any torch functions of one point z of shape (d,).

    Args:
        hamiltonian: H, (d,) → scalar; the target is p_s ∝ exp(−H).
        diffusion: D, a d×d matrix or a function (d,) → (d, d); symmetric positive semi-definite.
        curl: Q, a d×d matrix or a function (d,) → (d, d); skew-symmetric.

    Constant matrices are validated here, functions at the points they are evaluated at (`validate`).

    Raises:
        RecipeError: D is not positive semi-definite or Q is not skew-symmetric.
    """

    def __init__(
        self,
        hamiltonian: Callable[[Tensor], Tensor],
        diffusion: Matrix | Callable[[Tensor], Tensor],
        curl: Matrix | Callable[[Tensor], Tensor],
    ):
        self.hamiltonian = hamiltonian
        self.diffusion = diffusion if callable(diffusion) else _constant("diffusion", diffusion, _require_semidefinite)
        self.curl = curl if callable(curl) else _constant("curl", curl, _require_skew)

    def validate(self, z: Float[Tensor, "n d"]) -> None:
        """Refuse D(z) that is not positive semi-definite and Q(z) that is not skew at any of the points z."""
        for point in z:
            _require_semidefinite(_square("diffusion", self.diffusion(point), len(point)))
            _require_skew(_square("curl", self.curl(point), len(point)))

    def correction(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """τ(z), τ_i = Σ_j ∂/∂z_j (D_ij + Q_ij), by forward-mode autodiff."""
        return torch.func.vmap(self._correction)(z)

    def drift(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """f(z) = −(D + Q) ∇H + τ."""
        return torch.func.vmap(self._drift)(z)

    def stationarity_residual(
        self, z: Float[Tensor, "n d"], drift: Callable[[Tensor], Tensor] | None = None
    ) -> Float[Tensor, " n"]:
        """(∂p/∂t) / p at p = p_s, in units of 1/time: zero where the law is stationary.

        The Fokker–Planck equation in terms of the current J = f − ∇·D + D ∇H per unit of density reads
        (∂p/∂t)/p = −(∇·J − J·∇H).

        Args:
            z: points to test at.
            drift: a drift f of one point, (d,) → (d,), to test in place of this recipe's own.
        """
        force = self._drift if drift is None else drift

        def current(point: Tensor) -> Tensor:
            gradient = torch.func.grad(self.hamiltonian)(point)
            return force(point) - _divergence(self.diffusion, point) + self.diffusion(point) @ gradient

        def residual(point: Tensor) -> Tensor:
            gradient = torch.func.grad(self.hamiltonian)(point)
            return current(point) @ gradient - torch.func.jacrev(current)(point).diagonal().sum()

        return torch.func.vmap(residual)(z)

    def simulate(
        self, z: Float[Tensor, "n d"], step: float, steps: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n d"]:
        """`steps` Euler–Maruyama steps of size `step` from the points z."""
        if step <= 0 or steps < 1:
            raise ValueError(f"step must be positive and steps at least 1: got step = {step}, steps = {steps}.")
        for _ in range(steps):
            noise = torch.randn(z.shape, dtype=z.dtype, generator=generator).to(z.device)
            spread = _semidefinite_sqrt(2.0 * step * torch.func.vmap(self.diffusion)(z))
            z = z + step * self.drift(z) + (spread @ noise[..., None])[..., 0]
        return z

    def _correction(self, point: Tensor) -> Tensor:
        return _divergence(lambda p: self.diffusion(p) + self.curl(p), point)

    def _drift(self, point: Tensor) -> Tensor:
        gradient = torch.func.grad(self.hamiltonian)(point)
        return self._correction(point) - (self.diffusion(point) + self.curl(point)) @ gradient


def _divergence(matrix: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """Σ_j ∂_j M_ij."""
    return torch.einsum("ijj->i", torch.func.jacfwd(matrix)(point))


def _semidefinite_sqrt(matrix: Float[Tensor, "*B k k"]) -> Float[Tensor, "*B k k"]:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0.0).sqrt()[..., None, :]


def _constant(name: str, value: Matrix, require: Callable[[Tensor], None]) -> Callable[[Tensor], Tensor]:
    matrix = _square(name, value)
    require(matrix)
    return lambda z: matrix.to(z)


def _matrix(name: str, value: Matrix) -> Float[Tensor, "k r"]:
    try:
        matrix = torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{name} must be a matrix of numbers: {error}.") from error
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise RecipeError(f"{name} must be a matrix: got shape {tuple(matrix.shape)}.")
    if not matrix.isfinite().all():
        i, j = (~matrix.isfinite()).nonzero()[0].tolist()
        raise RecipeError(f"{name} must be finite: entry ({i}, {j}) is {float(matrix[i, j])}.")
    return matrix


def _square(name: str, value: Matrix, k: int | None = None) -> Float[Tensor, "k k"]:
    matrix = _matrix(name, value)
    k = len(matrix) if k is None else k
    if matrix.shape != (k, k):
        raise RecipeError(f"{name} must be {k}×{k}: got shape {tuple(matrix.shape)}.")
    return matrix


def _require_symmetric(name: str, matrix: Tensor) -> None:
    gap = (matrix - matrix.T).abs()
    if gap.max() > TOLERANCE * matrix.abs().max():
        i, j = divmod(int(gap.argmax()), len(matrix))
        raise RecipeError(
            f"{name} must be symmetric: entries ({i}, {j}) and ({j}, {i}) differ by {float(gap.max()):.6g}."
        )


def _require_semidefinite(diffusion: Tensor) -> None:
    _require_symmetric("diffusion", diffusion)
    smallest = float(torch.linalg.eigvalsh(diffusion)[0])
    if smallest < -TOLERANCE * max(float(diffusion.abs().max()), 1e-300):
        raise RecipeError(
            f"diffusion must be positive semi-definite: its smallest eigenvalue is {smallest:.6g}. "
            "An SDE dz = f dt + G dw has D = ½ G Gᵀ; LinearRecipe.from_sde takes G as it is."
        )


def _require_skew(curl: Tensor) -> None:
    gap = (curl + curl.T).abs()
    if gap.max() > TOLERANCE * max(float(curl.abs().max()), 1e-300):
        i, j = divmod(int(gap.argmax()), len(curl))
        lower = curl.tril(-1) if curl.tril(-1).any() else -curl.triu(1).T
        hint = [[round(float(v), 6) for v in row] for row in (lower - lower.T).tolist()]
        raise RecipeError(
            f"curl must be skew-symmetric: max |Q + Qᵀ| = {float(gap.max()):.6g} at entry ({i}, {j}). "
            f"Did you mean {hint}?"
        )


def _solve_lyapunov(a: Tensor, d: Tensor) -> Tensor:
    """S with A S + S Aᵀ + 2D = 0, through the k²×k² linear system (k is small)."""
    values = torch.linalg.eigvals(a)
    slowest = values[values.real.argmax()]
    if slowest.real >= -TOLERANCE * float(a.abs().max()):
        residual = float(2 * d.abs().max())
        raise RecipeError(
            f"the SDE has no stationary law: eigenvalue {_rate(complex(slowest))} of the drift does not decay "
            f"(all must have a negative real part), while noise adds variance at a rate of {residual:.6g}."
        )
    eye = torch.eye(len(a), dtype=a.dtype)
    s = torch.linalg.solve(torch.kron(a, eye) + torch.kron(eye, a), -2 * d.reshape(-1)).reshape(a.shape)
    s = 0.5 * (s + s.T)
    reached = _controllable_dimension(a, d)
    if reached < len(a):
        raise RecipeError(
            f"the stationary law is degenerate: noise reaches only {reached} of {len(a)} directions "
            "(rank of [D, AD, …]), the variance of the others falls to 0."
        )
    return s


def _controllable_dimension(a: Tensor, d: Tensor) -> int:
    """rank [D, AD, A²D, …]: how many variables the noise reaches, directly or through the drift (Kalman)."""
    if not d.any():
        return 0
    a, block = a / max(float(a.abs().max()), 1e-300), d / d.abs().max()
    blocks = [block]
    for _ in range(len(a) - 1):
        blocks.append(a @ blocks[-1])
    return int(torch.linalg.matrix_rank(torch.cat(blocks, dim=1), rtol=1e-10))


def _why_not_ergodic(k: int, reached: int, d: Tensor) -> str:
    if reached == 0:
        return "D is zero, there is no noise: the process never forgets where it started."
    quiet = [str(i) for i in range(k) if not d[i].any()]
    where = f" Variables without noise of their own: {', '.join(quiet)}." if quiet else ""
    return (
        f"noise reaches only {reached} of {k} directions (rank of [D, AD, …]), the others keep what they started with."
        f"{where} Couple them to a noisy variable through Q, or give them noise through D."
    )


def _damping(recipe: LinearRecipe) -> str:
    # in units where S = I, A is −D − Q: an eigenvalue is ill-conditioned there only for being close to a defective one
    root = torch.linalg.cholesky(recipe.covariance)
    whitened = torch.linalg.solve_triangular(root, recipe.drift_matrix @ root, upper=False)
    values, vectors = torch.linalg.eig(whitened)
    inverse, singular = torch.linalg.inv_ex(vectors)
    condition = vectors.norm(dim=0) * inverse.norm(dim=1)
    condition = torch.where((singular > 0) | ~condition.isfinite(), torch.inf, condition)
    # what a relative change of TOLERANCE does to an eigenvalue: to first order, and at most when all k coincide
    blur = float(values.abs().max()) * (TOLERANCE * condition).clamp(max=TOLERANCE ** (1.0 / recipe.k))
    if (values.imag.abs() > blur).any():
        return "under"
    return "critical" if (condition > TOLERANCE**-0.5).any() else "over"


def _rate(value: complex) -> str:
    return f"{value.real:.4g}" if abs(value.imag) <= 1e-5 * abs(value) else f"{value.real:.4g}{value.imag:+.4g}i"


def _yes(flag: bool) -> str:
    return "yes" if flag else "NO"
