"""Pictures of a fitted law: isoFLOP curves, the surface with its frontier, D/N, residuals, roll-out, sensitivity."""

from pathlib import Path

import numpy as np

from chinchilla_jax.scaling.analysis import Analysis
from chinchilla_jax.scaling.approaches import budgets

BEYOND = 30.0  # how far past the largest run the frontier is drawn


def draw(found: Analysis, folder: Path) -> list[str]:
    """One png each into `folder`; returns their paths."""
    from matplotlib.figure import Figure

    paths = []
    for name, paint in PICTURES.items():
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        paint(axes, found)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=120)
        paths.append(str(path))
    return paths


def isoflop(axes, found: Analysis) -> None:
    """Loss against N of every budget, with the law's curve and both estimators of the vertex."""
    runs, law = found.fit.runs, found.fit.surface
    tolerance = found.settings.budget_tolerance
    groups = sorted((rows for rows in budgets(runs, tolerance) if len(rows) > 2), key=len, reverse=True)[:9]
    for i, rows in enumerate(sorted(groups, key=lambda rows: runs.C[rows].mean())):
        C = float(np.exp(np.log(runs.C[rows]).mean()))
        N = np.geomspace(runs.N[rows].min() / 1.5, runs.N[rows].max() * 1.5, 100)
        axes.plot(runs.N[rows], runs.loss[rows], ".", color=f"C{i}")
        axes.plot(N, law.loss(N, C / runs.per_nd / N), color=f"C{i}", linewidth=1, label=f"{C:.2g} FLOPs")
    if not isinstance(found.isoflop, str):
        vertices = found.isoflop[1]
        axes.plot([b.N for b in vertices], [b.loss for b in vertices], "kx", label="parabola")
        curved = [b for b in vertices if b.akima]
        axes.plot([b.akima for b in curved], [b.loss for b in curved], "k+", label="Akima")
    axes.set(xscale="log", xlabel=f"N ({found.law.count})", ylabel=f"loss ({found.law.unit})", title="isoFLOP")


def _band(found: Analysis, C: np.ndarray):
    law, level = found.law, found.settings.level
    edges = [50 * (1 - level), 50 * (1 + level)]
    laws = law.replicates
    pairs = [laws.optimum(c, law.per_nd) for c in C]
    sizes = np.array([np.percentile(N, edges) for N, _ in pairs])
    return sizes, np.array([np.percentile(D / N, edges) for N, D in pairs])


def _budgets(found: Analysis) -> np.ndarray:
    C = found.fit.runs.C
    return np.geomspace(C.min(), max([C.max() * BEYOND, *found.settings.flops]), 40)


def contour(axes, found: Analysis) -> None:
    """Lines of equal loss over compute and size, the runs, and the frontier with its band."""
    runs, law, C = found.fit.runs, found.law, _budgets(found)
    N = np.geomspace(runs.N.min() / 2, max(runs.N.max() * 2, law.surface.optimum(C[-1], law.per_nd)[0] * 2), 80)
    L = law.surface.loss(N[:, None], C[None, :] / law.per_nd / N[:, None])
    low = max(law.floor * 1.002, float(L.min()))
    if low < runs.loss.max():
        axes.contour(C, N, L, levels=np.geomspace(low, runs.loss.max(), 16), linewidths=0.6, cmap="viridis")
    axes.plot(runs.C, runs.N, ".", color="tab:gray", markersize=3, label="runs")
    sizes, _ = _band(found, C)
    axes.fill_between(C, *sizes.T, color="tab:red", alpha=0.2, label=f"{found.settings.level:.0%}")
    axes.plot(C, law.surface.optimum(C, law.per_nd)[0], color="tab:red", label="frontier")
    axes.set(xscale="log", yscale="log", xlabel="C (FLOPs)", ylabel=f"N ({law.count})", title="equal loss")


def ratio(axes, found: Analysis) -> None:
    """D/N of the optimum against compute, with its band; the dotted line is where the runs end."""
    law, C = found.law, _budgets(found)
    N, D = law.surface.optimum(C, law.per_nd)
    axes.fill_between(C, *_band(found, C)[1].T, alpha=0.2, label=f"{found.settings.level:.0%}")
    axes.plot(C, D / N, label="optimum")
    axes.axvline(found.fit.runs.C.max(), color="gray", linestyle=":", label="largest run")
    axes.set(xscale="log", yscale="log", xlabel="C (FLOPs)", ylabel="tokens per parameter", title="D/N")


def residuals(axes, found: Analysis) -> None:
    """Misses in per cent against tokens per parameter, coloured by size: a bow is form error."""
    runs = found.fit.runs
    dots = axes.scatter(runs.D / runs.N, 100 * np.expm1(found.fit.residuals), c=np.log10(runs.N), s=12)
    axes.figure.colorbar(dots, label="log10 N")
    axes.axhline(0, color="gray", linewidth=1)
    axes.set(xscale="log", xlabel="tokens per parameter", ylabel="predicted minus observed, %", title="residuals")


def rollout(axes, found: Analysis) -> None:
    """Error of the largest runs' losses by how much smaller the runs that predicted them were."""
    rows = [row for row in found.rollout if row.mean_error is not None]
    axes.set(xlabel="compute predicted over compute fitted", ylabel="error, %", title="roll-out")
    if not rows:
        axes.text(0.5, 0.5, "too few runs to leave any out", ha="center", transform=axes.transAxes)
        return
    reach = [row.C_predicted / row.C_fitted for row in rows]
    axes.plot(reach, [100 * row.mean_error for row in rows], "o-", label="mean")
    axes.plot(reach, [100 * row.worst_error for row in rows], "x--", label="worst")
    axes.axhline(0, color="gray", linewidth=1)
    axes.set(xscale="log")


def sensitivity(axes, found: Analysis) -> None:
    """D/N under other choices, beside the interval of the chosen one."""
    rows = [row for row in found.sensitivity if row.tokens_per_param is not None][::-1]
    ends = found.answers[0]["tokens_per_param"]["interval"]
    axes.axvspan(ends[0] or rows[0].tokens_per_param, ends[1] or rows[0].tokens_per_param, alpha=0.15,
                 label=f"{found.settings.level:.0%}")  # fmt: skip
    axes.plot([row.tokens_per_param for row in rows], [row.what for row in rows], "o")
    axes.set(xscale="log", xlabel="tokens per parameter", title=f"choices, at {found.settings.flops[0]:.3g} FLOPs")


PICTURES = {
    "isoflop": isoflop,
    "contour": contour,
    "ratio": ratio,
    "residuals": residuals,
    "rollout": rollout,
    "sensitivity": sensitivity,
}
