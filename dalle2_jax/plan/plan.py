"""Compiles a run's real train step for a topology and says what it needs there."""

import itertools
import re
import resource
import time
from typing import Any, NamedTuple

import jax

from dalle2_jax.plan.compose import MANY, kinds_of, lower_block, unet_blocks
from dalle2_jax.plan.hlo import collectives
from dalle2_jax.plan.program import program_of
from dalle2_jax.plan.traffic import Traffic, compute_width, traffic
from dalle2_jax.shard.flops import flops_of
from dalle2_jax.shard.hardware import CHIPS
from dalle2_jax.train.cost import without_remat

# A sixth of the compiler's time. What it leaves out makes steps faster; memory (within
# 1 % on a block of 1024 channels) and traffic (to the byte) are the same.
QUICK = {"exec_time_optimization_effort": -1.0}


class Memory(NamedTuple):
    """Bytes per device; output: what is not written over donated arguments.

    limit: what a program may use, None where that is not known; reason: the compiler's
    words where it refused the program as too large.
    """

    arguments: int
    temporaries: int
    output: int
    code: int
    limit: float | None
    reason: str = ""

    @property
    def total(self):
        """All that is held at once."""
        return self.arguments + self.temporaries + self.output + self.code

    @property
    def fits(self):
        """Whether it does, as far as is known."""
        return not self.reason and (self.limit is None or self.total <= self.limit)


class Plan(NamedTuple):
    """What a run needs on a topology.

    chip: name in CHIPS or "cpu"; parameters: (trained, frozen); flops: of one step on
    all devices, as written; model_flops: the same without rematerialisation; traffic:
    None where the program was refused; seconds, host_bytes: what planning took; blocks:
    distinct blocks compiled on their own, 0 for a step compiled whole.
    """

    run: Any
    topology: str
    chip: str
    devices: int
    mesh: dict
    parameters: tuple
    memory: Memory
    flops: float
    model_flops: float
    traffic: Traffic | None
    seconds: float
    host_bytes: int
    blocks: int = 0


def plan(run, clip_cfg, topology, chip, devices, most=MANY, tell=print):
    """The plan of a run.

    Args:
        run: Run.
        clip_cfg: ClipConfig of the frozen CLIP.
        topology: its name.
        chip: name in CHIPS, or "cpu".
        devices: jax devices.
        most: rematerialised blocks of a U-Net up to which the step is compiled whole;
            so is one whose blocks keep more than their arguments.
        tell: called with a sentence about every block that is compiled on its own.

    Raises:
        BadInput: run, CLIP and devices do not fit each other.
    """
    began = time.monotonic()
    program = program_of(run, clip_cfg, devices)
    limit, kinds = limit_of(chip), 0
    quick = QUICK if chip in CHIPS else None
    try:
        if unet_blocks(run.model) > most and run.remat_keeps == "nothing":
            memory, found, kinds = in_parts(program, limit, quick, tell)
        else:
            memory, found = at_once(program, limit, quick)
        sent = traffic(found, program, compute_width(run))
    except jax.errors.JaxRuntimeError as error:
        memory, sent = refused(error, program, limit), None
    plain = program_of(without_remat(run), clip_cfg, devices)
    program = program_of(run, clip_cfg, devices)
    return Plan(
        run=run,
        topology=topology,
        chip=chip,
        devices=len(devices),
        mesh=dict(program.mesh.shape),
        parameters=tuple(map(parameter_count, program.parameters)),
        memory=memory,
        flops=flops_of(program.step, *program.shapes),
        model_flops=flops_of(plain.step, *plain.shapes),
        traffic=sent,
        seconds=time.monotonic() - began,
        host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        blocks=kinds,
    )


def at_once(program, limit, quick):
    """Memory and Collectives of a step compiled whole."""
    compiled = program.step.lower(*program.shapes).compile(quick)
    found = collectives(compiled.as_text(), program.mesh.size)
    return memory_of(compiled, limit), found


def in_parts(program, limit, quick, tell):
    """Memory, Collectives and number of distinct blocks of a step in parts."""
    kinds, order, lowered = kinds_of(program.step, program.shapes)
    tell(f"{len(kinds)} kinds of blocks and the step around them")
    around = lowered.compile(quick)
    memory = memory_of(around, limit)
    tell(f"around: {memory.total / 2**30:.2f} GiB")
    found, sizes, code = collectives(around.as_text(), program.mesh.size), [], 0
    for number, kind in enumerate(kinds):
        times = order.count(number)
        compiled = lower_block(kind, program.mesh).compile(quick)
        alone = memory_of(compiled, limit)
        sizes.append(alone.temporaries)
        code += times * alone.code
        sent = collectives(compiled.as_text(), program.mesh.size)
        found += [one._replace(times=one.times * times) for one in sent]
        shape = kind.args[0].shape
        tell(
            f"{number + 1}/{len(kinds)}: {times} x {kind.block.__name__} of {shape}, "
            f"temporaries {sizes[-1] / 2**30:.2f} GiB"
        )
    most = max(sizes[a] + sizes[b] for a, b in itertools.pairwise(order))
    memory = memory._replace(
        temporaries=memory.temporaries + most, code=memory.code + code
    )
    return memory, found, len(kinds)


def limit_of(chip):
    """Bytes that a program may use on a device of a compile-only topology, or None."""
    return CHIPS[chip].hbm / CHIPS[chip].devices if chip in CHIPS else None


def memory_of(compiled, limit):
    """Memory of a compiled program."""
    found = compiled.memory_analysis()
    return Memory(
        found.argument_size_in_bytes,
        found.temp_size_in_bytes,
        found.output_size_in_bytes - found.alias_size_in_bytes,
        found.generated_code_size_in_bytes,
        limit,
    )


def refused(error, program, limit):
    """Memory of a program that the compiler calls too large.

    Raises:
        error: it is about something else.
    """
    if "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    reason = str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
    size = re.search(r"temporaries \(([\d.]+)([KMGT])\)", reason)
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    temporaries = int(float(size[1]) * units[size[2]]) if size else 0
    return Memory(argument_bytes(program.shapes), temporaries, 0, 0, limit, reason)


def argument_bytes(shapes):
    """Bytes per device of shapes with shardings."""
    total = 0
    for leaf in jax.tree.leaves(shapes):
        count = 1
        for size in leaf.sharding.shard_shape(leaf.shape):
            count *= size
        total += count * leaf.dtype.itemsize
    return total


def parameter_count(params):
    """Numbers in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
