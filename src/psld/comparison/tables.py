"""Results as tables in Markdown and LaTeX: samplers down, budgets across."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psld.comparison.results import SweepResult

__all__ = ["best_of_each", "latex_table", "markdown_table", "process_tables"]


def markdown_table(
    results: Sequence[SweepResult], shown: Callable[[SweepResult], str], families: bool = False
) -> list[str]:
    """Lines of a table of one process.

    Args:
        results: a sampler has at most one of each budget; of several the last is shown.
        shown: what stands in the cell of a result.
        families: with a column for them.
    """
    heads, rows = _cells(results, shown, families)
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    return lines + [f"| {' | '.join(text.replace('|', '/') for text in texts)} |" for texts in rows]


def latex_table(
    results: Sequence[SweepResult], shown: Callable[[SweepResult], str], caption: str, families: bool = False
) -> str:
    """The same as a `table` with booktabs' rules; characters that LaTeX reads as commands are escaped.

    Args:
        results: as of `markdown_table`.
        shown: what stands in the cell of a result, in LaTeX already.
        caption: in plain text.
        families: with a column for them.
    """
    heads, rows = _cells(results, shown, families)
    words = len(heads) - len({result.budget for result in results})
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(caption)}}}"]
    lines += [rf"\begin{{tabular}}{{{'l' * words}{'r' * (len(heads) - words)}}}", r"\toprule"]
    lines += [" & ".join(map(_escaped, heads)) + r" \\", r"\midrule"]
    lines += [" & ".join([*map(_escaped, texts[:words]), *texts[words:]]) + r" \\" for texts in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "σ": r"$\sigma$",
    "η": r"$\eta$",
    "Γ": r"$\Gamma$",
    "κ": r"$\kappa$",
    "β": r"$\beta$",
    "ν": r"$\nu$",
    "×": r"$\times$",
    "λ": r"$\lambda$",
}


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _cells(
    results: Sequence[SweepResult], shown: Callable[[SweepResult], str], families: bool
) -> tuple[list[str], list[list[str]]]:
    budgets = sorted({result.budget for result in results})
    heads = [*(["family"] if families else []), "sampler", *(f"NFE {budget}" for budget in budgets)]
    rows = []
    for family, sampler in dict.fromkeys((result.family, result.sampler) for result in results):
        own = {r.budget: shown(r) for r in results if r.sampler == sampler}
        rows.append([*([family] if families else []), sampler, *(own.get(b, "") for b in budgets)])
    return heads, rows


def process_tables(results: Sequence[SweepResult]) -> str:
    """A table a process against exact solutions: Fréchet distance and, in brackets, RMS to the exact flow."""
    lines = []
    for process in dict.fromkeys(result.process for result in results):
        own = [result for result in results if result.process == process]
        floors = (("Fréchet distance", own[0].frechet_floor, 3), ("energy distance", own[0].energy_floor, 4))
        known = ", ".join(f"{name} {floor:.{digits}f}" for name, floor, digits in floors if floor is not None)
        lines += [f"### {process}", "", f"Floors: {known}.", "", *markdown_table(own, _figures, families=True), ""]
    return "\n".join(lines)


def best_of_each(results: Sequence[SweepResult]) -> str:
    """The best sampler of each process and budget, in Fréchet distance, beside the paper's best."""
    lines = [f"{'process':<30}{'NFE':>4}  {'Fréchet':>8}{'paper':>9}{'floor':>7}  best sampler"]
    for process in dict.fromkeys(result.process for result in results):
        for budget in sorted({result.budget for result in results}):
            own = [r for r in results if (r.process, r.budget) == (process, budget) and r.nfe <= budget]
            if not own:
                continue
            best = min(own, key=lambda result: result.frechet)
            paper = min((r.frechet for r in own if r.family == "paper"), default=float("nan"))
            floor = float("nan") if best.frechet_floor is None else best.frechet_floor
            lines.append(f"{process:<30}{budget:>4}  {best.frechet:>8.3f}{paper:>9.3f}{floor:>7.3f}  {best.sampler}")
    return "\n".join(lines)


def _figures(result: SweepResult) -> str:
    rms = "" if result.rms_to_exact is None else f" ({_short(result.rms_to_exact)})"
    calls = "" if abs(result.nfe - result.budget) < 1 else f" at {result.nfe:.4g}"
    return f"{_short(result.frechet)}{rms}{calls}"


def _short(value: float) -> str:
    return f"{value:.3g}" if 1e-4 <= value < 1000 else f"{value:.1e}"
