"""A plan as text for people and as a dict for scripts."""

from dalle2_jax.plan.predict import predict

SHOWN = 12  # collectives that are named


def as_json(plan):
    """The plan as JSON-able values; bytes and flops as plain numbers."""
    memory, sent, ahead = plan.memory, plan.traffic, predict(plan)
    trained, frozen = plan.parameters
    return {
        "stage": plan.run.stage,
        "batch": plan.run.batch,
        "steps": plan.run.steps,
        "topology": plan.topology,
        "devices": plan.devices,
        "mesh": plan.mesh,
        "parameters": {"trained": trained, "frozen": frozen},
        "memory": {**memory._asdict(), "total": memory.total, "fits": memory.fits},
        "flops": {
            "per_device": plan.flops / plan.devices,
            "model_per_device": plan.model_flops / plan.devices,
            "recomputation": plan.flops / plan.model_flops,
        },
        "communication": sent and _traffic(sent),
        "prediction": ahead and ahead._asdict(),
        "planning": {
            "seconds": plan.seconds,
            "host_bytes": plan.host_bytes,
            "blocks": plan.blocks,
        },
    }


def lines(plan):
    """The plan as lines of text."""
    yield from _head(plan)
    yield from _memory(plan.memory)
    yield (
        f"operations  {_number(plan.flops / plan.devices)}flop per device and step, "
        f"{_number(plan.model_flops / plan.devices)}flop of the model itself: "
        f"{plan.flops / plan.model_flops:.2f} x with recomputation"
    )
    yield from _sent(plan.traffic) if plan.traffic else ()
    yield from _ahead(predict(plan))
    how = f"composed from {plan.blocks} blocks and the step around them"
    yield (
        f"planning    {plan.seconds:.0f} s, {plan.host_bytes / 1e9:.1f} GB here; "
        f"{how if plan.blocks else 'the step compiled whole'}"
    )


def _head(plan):
    axes = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    trained, frozen = plan.parameters
    yield f"plan        {plan.run.stage} on {plan.topology}, {plan.devices} devices"
    yield f"mesh        {axes}, batch {plan.run.batch}, {plan.run.steps:,} steps"
    yield f"parameters  {trained:,} trained, {frozen:,} frozen"


def _memory(memory):
    yield (
        f"memory      {_bytes(memory.total)} per device: arguments "
        f"{_bytes(memory.arguments)}, temporaries {_bytes(memory.temporaries)}, output "
        f"{_bytes(memory.output)}, code {_bytes(memory.code)}"
    )
    if memory.limit:
        verdict = "fits" if memory.fits else "does NOT fit"
        yield (
            f"            {verdict}: {memory.total / memory.limit:.0%} of "
            f"{_bytes(memory.limit)}"
        )
    if memory.reason:
        yield f"            {memory.reason}"


def _sent(sent):
    yield (
        f"received    {_bytes(sent.total)} per device and step, {sent.ratio:.2f} x the "
        f"least ({_bytes(sent.least)}: weights twice, gradients once)"
    )
    for kind, (count, size) in sorted(sent.kinds.items()):
        yield f"            {kind:<20} {count:>7} x  {_bytes(size)}"
    if not sent.excess:
        yield "            weights and their gradients, nothing else of note"
        return
    yield "            beside weights and gradients:"
    for one in sent.excess[:SHOWN]:
        shapes = ", ".join(one.shapes[:3])
        yield (
            f"              {one.times} x {one.kind} {shapes} "
            f"{_bytes(one.bytes * one.times)} {one.name[-70:]}"
        )


def _ahead(found):
    if found is None:
        return
    yield (
        f"prediction  {_range(found.images, '.0f')} images/s, step "
        f"{_range(found.seconds, '.3g')} s, {_range(found.days, '.3g')} days; bound by "
        f"{found.bound} (sending takes {found.send:.3g} s)"
    )
    yield f"            assumed: {found.words}"


def _range(pair, form):
    low, high = sorted(pair)
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def _traffic(sent):
    kinds = {k: {"count": n, "bytes": size} for k, (n, size) in sent.kinds.items()}
    return {
        "kinds": kinds,
        "bytes": sent.total,
        "least": sent.least,
        "ratio": sent.ratio,
        "all_to_all": kinds.get("all-to-all", {}).get("count", 0),
        "excess": [one._asdict() for one in sent.excess],
    }


def _bytes(size):
    for unit, width in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if size >= width:
            return f"{size / width:.2f} {unit}"
    return f"{size / 2**10:.1f} KiB"


def _number(value):
    for unit, width in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= width:
            return f"{value / width:.2f} {unit}"
    return f"{value:.0f} "
