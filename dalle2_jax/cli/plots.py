"""Figures of studies, drawn with matplotlib."""

LABELS = {
    "scale": "guidance scale of the decoder",
    "frechet": "Fréchet distance (lower is better)",
    "clip_score": "CLIP score (cosine)",
    "recall": "recall (diversity)",
    "precision": "precision (fidelity)",
    "aesthetic": "predicted aesthetic rating",
}


def plot_sweep(path, rows, panels, title):
    """One panel per pair of axes, one line per route and scale of the prior.

    Args:
        path: of the PNG.
        rows: {Setting: {metric: (mean, deviation or None)}}, in the order of scales.
        panels: (x, y) names of metrics; "scale" is the decoder's guidance.
        title: what the numbers were measured on.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = {}
    for setting, found in rows.items():
        point = {**found, "scale": (setting.decoder, None)}
        lines.setdefault((setting.route, setting.prior), []).append(point)
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(5.5 * len(panels), 4.2), layout="constrained"
    )
    for panel, (x, y) in zip(axes, panels):
        for source, points in lines.items():
            _line(panel, source, points, x, y)
        panel.set(xlabel=LABELS[x], ylabel=LABELS[y])
        panel.locator_params(nbins=6)
        panel.grid(alpha=0.3)
    if len(lines) > 1:
        axes[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _line(panel, source, points, x, y):
    """One line with error bars; where x is no scale, each point is named by its own."""
    from dalle2_jax.evaluate.routes import NAMED

    route, prior = source
    label = NAMED[route] + ("" if prior is None else f", prior {prior:g}")
    means, bars = zip(*((p[x], p[y]) for p in points))
    panel.errorbar(
        [mean for mean, _ in means],
        [mean for mean, _ in bars],
        xerr=_deviations(means),
        yerr=_deviations(bars),
        marker="o",
        markersize=4,
        capsize=3,
        label=label,
    )
    if x != "scale":
        for point in points:
            place = point[x][0], point[y][0]
            offset = {"xytext": (5, 4), "textcoords": "offset points"}
            panel.annotate(f"{point['scale'][0]:g}", place, fontsize=8, **offset)


def _deviations(pairs):
    """Lengths of error bars, or None where there is one seed, or an axis of scales."""
    found = [deviation for _, deviation in pairs]
    return None if None in found else found
