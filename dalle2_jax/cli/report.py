"""The quickstart's report: a grid, learning curves, report.json and report.md."""

import platform
import resource
import sys

from dalle2_jax.cli.quickstart import ACCEPTED, STAGES

ROWS = {  # row of the grid -> what it is called there
    "real": "real pictures of the captions",
    "full_stack": "full stack: prior, decoder, upsampler",
    "text_embedding": "text embedding instead of the prior",
    "caption_only": "caption only",
}
COLUMNS = 10


def write_report(plan, found, times):
    """Writes everything; report.json last, so that its presence means completeness."""
    from dalle2_jax.components import write_json
    from dalle2_jax.data.provenance import save_picture

    facts = {"world": plan.world, "minutes": plan.minutes, "seed": plan.seed}
    save_picture(plan.out / "grid.png", grid(found), facts)
    curves(plan, plan.out / "curves.png")
    report = report_of(plan, found, times)
    (plan.out / "report.md").write_text(markdown(report), encoding="utf-8")
    write_json(plan.folder / "report.json", report)
    write_json(plan.out / "report.json", report)


def report_of(plan, found, times):
    """The JSON-able report."""
    from dalle2_jax.evaluate.prior_importance import finding

    routes = {name: judged.scores for name, judged in found["routes"].items()}
    said = finding(routes, found["cosines"])
    full = routes.pop("full_stack")
    probes = found["probes"]
    weak = [a for a, p in probes.items() if p["held_out"] < ACCEPTED]
    return {
        "world": plan.world,
        "minutes": plan.minutes,
        "seed": plan.seed,
        "decoder": plan.decoder,
        **full,
        "ablations": routes,
        "finding": said,
        "prior_cosines": cosines_of(found["cosines"]),
        "clip_retrieval": found["retrieval"],
        "protocol": found["protocol"],
        "probes": probes,
        "clip_accepted": not weak,
        "clip_weak": weak,
        "seconds": times,
        "total_seconds": sum(part["total"] for part in times.values()),
        "peak_memory_gib": peak_gib(),
        "python": platform.python_version(),
        "others": others(plan),
    }


def cosines_of(found):
    """JSON form of prior_scores: {name: {"mean", "standard_error"}}."""
    kinds = ("mean", "standard_error")
    return {name: dict(zip(kinds, pair)) for name, pair in found.items()}


def peak_gib():
    """The largest resident size of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def others(plan):
    """Accuracy of other finished runs of this world in the same folder, by name."""
    from dalle2_jax.components import read_json

    found = {}
    for path in sorted(plan.out.glob(f"{plan.world}-*/report.json")):
        if path.parent != plan.folder:
            other = read_json(path, "remove it")
            found[path.parent.name] = {
                "minutes": other["minutes"],
                "accuracy": other["accuracy"],
            }
    return found


def grid(found):
    """The sheet: one column a caption, one row a route."""
    import numpy as np

    from dalle2_jax.cli.pictures import contact_sheet

    wanted = found["wanted"]
    shown = min(COLUMNS, len(wanted.captions))
    rows = [wanted.images[:shown]]
    rows += [found["routes"][name].pictures[:shown] for name in list(ROWS)[1:]]
    captions = [""] * shown * (len(rows) - 1) + list(wanted.captions[:shown])
    return contact_sheet(np.concatenate(rows), captions, shown, list(ROWS.values()))


def curves(plan, path):
    """Loss against step for every stage, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from dalle2_jax.train.metrics import read_metrics

    figure, panels = pyplot.subplots(1, len(STAGES), figsize=(14, 3))
    for stage, panel in zip(STAGES, panels):
        lines = read_metrics(plan.folder / stage / "metrics.jsonl")
        panel.plot([m["step"] for m in lines], [m["loss"] for m in lines])
        panel.set(title=stage, xlabel="step", yscale="log")
    panels[0].set_ylabel("training loss")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def markdown(report):
    """The report for people."""
    name = report["world"]
    parts = [
        f"# unCLIP on the world `{name}`, budget {report['minutes']:g} minutes",
        f"Made by `dalle2 quickstart --world {name} --minutes {report['minutes']:g} "
        f"--seed {report['seed']}`; decoder `{report['decoder']}`.",
        "![samples](grid.png)",
        f"Captions hold (shape, colour) pairs that no training picture shows; "
        f"n = {report['n']} per row, percent right, ± one standard error.",
        accuracy_table(report),
        protocol_text(report),
        others_text(report),
        "## Is the prior needed? (unCLIP, section 5.1)",
        report["finding"],
        cosine_table(report),
        "## What CLIP's embedding holds",
        "Linear probes on frozen z_i, fitted on training pairs, percent right.",
        probe_table(report),
        "## Time and memory",
        times_table(report),
        "![learning curves](curves.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def accuracy_table(report):
    """Markdown: routes by attributes."""
    from dalle2_jax.evaluate.routes import NAMED

    names = list(report["accuracy"])
    rows = {"full_stack": report, **report["ablations"]}
    lines = [
        "| z_i from | " + " | ".join(names) + " | CLIP score | Fréchet (CLIP) |",
        "|---" * (len(names) + 3) + "|",
    ]
    for route, scores in rows.items():
        share, error = scores["accuracy"], scores["standard_error"]
        cells = [f"{100 * share[a]:.1f} ± {100 * error[a]:.1f}" for a in names]
        distance = f"{scores['frechet_clip']:.4f}"
        if "frechet_error" in scores:
            distance += f" ± {scores['frechet_error']:.4f}"
        cells += [f"{scores['clip_score']:.3f}", distance]
        lines.append(f"| {NAMED[route]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def protocol_text(report):
    """Markdown: what stands beside the distances and CLIP scores."""
    facts = report["protocol"]
    return (
        f"Fréchet distance and CLIP score: n = {facts['n']} against as many real "
        f"pictures ({facts['reference']['name']}), features of the run's own CLIP "
        f"({facts['features']}, resize: {facts['resize']}), raw cosine. They compare "
        "with numbers of the same n and features alone."
    )


def cosine_table(report):
    """Markdown: how close the prior's z_i comes, beside the data's own."""
    from dalle2_jax.evaluate.prior_scores import COSINES

    lines = ["| cosine of | mean | standard error |", "|---|---|---|"]
    for name, pair in report["prior_cosines"].items():
        mean, error = pair["mean"], pair["standard_error"]
        lines.append(f"| {COSINES[name]} | {mean:.3f} | {error:.3f} |")
    found = report["clip_retrieval"]
    shares = [found[way][1] for way in ("image_to_text", "text_to_image")]
    shares += [found["r_precision"], report["r_precision"]]
    there, back, real, drawn = (f"{100 * share:.1f} %" for share in shares)
    lines += [
        "",
        f"CLIP finds a real picture's caption first of {found['captions']} in {there} "
        f"and a caption's picture in {back}; R-precision among {found['distractors']} "
        f"others: real pictures {real}, drawn ones {drawn}.",
    ]
    return "\n".join(lines)


def others_text(report):
    """Markdown: by how much this run is better than others in the same folder."""
    if "all" not in report["accuracy"]:
        return ""  # a world that is not read back
    ours = 100 * report["accuracy"]["all"]
    lines = []
    for name, other in report["others"].items():
        theirs = 100 * other["accuracy"]["all"]
        lines.append(
            f"- against `{name}`: all attributes right {ours:.1f} % here, "
            f"{theirs:.1f} % there ({ours - theirs:+.1f} points)"
        )
    return "\n".join(lines)


def probe_table(report):
    """Markdown: attributes by seen and held-out pairs."""
    if not report["probes"]:
        return "This world has pictures of many objects only: CLIP was not probed."
    lines = ["| attribute | seen pairs | held-out pairs |", "|---|---|---|"]
    for attribute, found in report["probes"].items():
        seen, held = 100 * found["seen"], 100 * found["held_out"]
        lines.append(f"| {attribute} | {seen:.1f} | {held:.1f} |")
    weak = ", ".join(report["clip_weak"])
    verdict = (
        f"CLIP does not hold {weak} well enough (below {100 * ACCEPTED:.0f} on "
        "held-out pairs); samples will not show it. Give it more minutes."
        if weak
        else "CLIP is accepted: every attribute is in its embedding."
    )
    return "\n".join([*lines, "", verdict])


def times_table(report):
    """Markdown: seconds by part, compile and training apart."""
    lines = ["| part | compile s | train s | total s |", "|---|---|---|---|"]
    for part, seconds in report["seconds"].items():
        cells = [
            f"{seconds[k]:.0f}" if k in seconds else "" for k in ("compile", "train")
        ]
        lines.append(f"| {part} | {' | '.join(cells)} | {seconds['total']:.0f} |")
    lines.append(f"| all |  |  | {report['total_seconds']:.0f} |")
    memory = f"Peak memory {report['peak_memory_gib']:.1f} GiB."
    return "\n".join([*lines, "", memory])
