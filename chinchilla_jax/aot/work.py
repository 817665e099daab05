"""What a compiled program makes a chip do: products, and numbers read from and written to its memory."""

import math
import re
from functools import lru_cache
from typing import NamedTuple

from chinchilla_jax.aot.hlo import Array, Computation, Instruction, Program, walk

# These move nothing by themselves: names for what is there, or the running of other computations.
FREE = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "replica-id", "opt-barrier", "async-start", "async-update", "async-done",
}  # fmt: skip


class Work(NamedTuple):
    """FLOPs of the products and bytes of memory traffic of one chip in a step, and the seconds they take together.

    `seconds` adds up, instruction by instruction, whichever of the two takes longer.
    """

    flops: float
    bytes: float
    seconds: float


def measure(program: Program, flops: float, bandwidth: float) -> Work:
    """The work of a step on a chip that does `flops` FLOP/s and moves `bandwidth` bytes/s."""
    total = [0.0, 0.0, 0.0]
    for visit in walk(program):
        one = visit.instruction
        if visit.fused or one.kind in FREE:
            continue
        products, moved = _flops(program, visit.computation, one), _traffic(program, visit.computation, one)
        for i, part in enumerate((products, moved, max(products / flops, moved / bandwidth))):
            total[i] += visit.times * part
    return Work(*total)


def _flops(program: Program, computation: Computation, one: Instruction) -> float:
    """2 x outputs x contracted numbers, of an instruction and of all that is fused into it."""
    if one.kind == "fusion":
        inside = [program.computations[name] for name in one.called]
        return sum(_flops(program, c, i) for c in inside for i in c.values())
    if one.kind not in ("dot", "convolution", "custom-call"):
        return 0.0
    outputs = math.prod(one.arrays[0].sizes) if one.arrays else 0
    left, right = ([_arrays(computation, name)[0].sizes for name in one.operands[:2]] + [(), ()])[:2]
    if one.kind == "convolution":
        return 2.0 * _convolution(one, left, right)
    contracted = re.search(r'lhs_contracting_dim(?:ension)?s"?[=:][{\[]([\d,"]+)', one.attributes)
    if not contracted:
        return 0.0
    return 2.0 * outputs * math.prod(left[int(d)] for d in re.findall(r"\d+", contracted[1]))


def _convolution(one: Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> float:
    """Multiply-adds of a convolution, which is what a TPU makes of a product: those that meet a number, not padding."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    inward, kernel, outward = labels.groups()
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", re.search(r"window=\{([^}]*)\}|$", one.attributes)[1] or ""))
    result, many = one.arrays[0].sizes, 1
    for axis in sorted(set(inward) - {"b", "f"}):
        at = int(axis)

        def read(name, default, at=at):
            return window[name].split("x")[at] if name in window else default

        many *= _meetings(
            left[inward.index(axis)],
            right[kernel.index(axis)],
            result[outward.index(axis)],
            *(int(read(name, "1")) for name in ("stride", "lhs_dilate", "rhs_dilate")),
            int(read("pad", "0_0").split("_")[0]),
        )
    return many * result[outward.index("b")] * result[outward.index("f")] * right[kernel.index("i")]


@lru_cache(4096)
def _meetings(size: int, window: int, outputs: int, stride: int, spread: int, dilation: int, pad: int) -> int:
    """Pairs of an output's place and a window's, along one axis, that fall on a number."""
    count = 0
    for output in range(outputs):
        for place in range(window):
            at = output * stride + place * dilation - pad
            count += 0 <= at < size * spread and at % spread == 0 and at // spread < size
    return count


def _arrays(computation: Computation, name: str) -> tuple[Array, ...]:
    return computation[name].arrays if name in computation and computation[name].arrays else (Array("", (), False),)


def _size(found: tuple[Array, ...]) -> float:
    return sum(array.bytes for array in found if array.in_memory)


def _traffic(program: Program, computation: Computation, one: Instruction) -> float:
    """Bytes read and written; of a large array that is only sliced or updated in place, that slice."""
    if one.kind.endswith("-done"):
        return 0.0
    if one.kind.endswith("-start"):
        return _size(one.arrays)
    if one.kind == "fusion":
        return _fused(program.computations[one.called[0]], computation, one)
    return _touched(computation, one, lambda name: _size(_arrays(computation, name)))


def _touched(computation: Computation, one: Instruction, read) -> float:
    """Bytes of one instruction, `read` telling those of an operand."""
    if one.kind in ("dynamic-slice", "slice", "gather"):
        return 2 * _size(one.arrays)
    if one.kind in ("dynamic-update-slice", "scatter"):
        return 2 * read(one.operands[1 if one.kind == "dynamic-update-slice" else -1])
    return _size(one.arrays) + sum(read(name) for name in one.operands)


def _fused(inside: Computation, outside: Computation, one: Instruction) -> float:
    """Traffic of a fusion: its operands and results, each once, and of those that it slices or updates the slice."""
    users: dict[str, list[Instruction]] = {}
    for user in inside.values():
        for name in user.operands:
            users.setdefault(name, []).append(user)

    def read(name: str) -> float:
        """Bytes of an operand that are read."""
        total = 0.0
        for user in users.get(name, ()):
            if user.kind in ("dynamic-slice", "gather") and user.operands[0] == name:
                total += sum(array.bytes for array in user.arrays)
            elif user.kind == "bitcast":
                total += read(user.name)
            elif user.kind != "dynamic-update-slice" or user.operands[0] != name:
                return math.inf
        return total

    def written(name: str) -> float:
        """Bytes of a result that are written."""
        made = inside[name]
        if made.kind == "tuple":
            return sum(written(part) for part in made.operands)
        if made.kind == "bitcast" and made.operands[0] in inside:
            return min(written(made.operands[0]), _size(made.arrays) or math.inf)
        if made.kind == "dynamic-update-slice":
            return sum(array.bytes for array in _arrays(inside, made.operands[1]))
        return _size(made.arrays)

    root = next(i.name for i in inside.values() if i.root)
    total = min(written(root), _size(one.arrays))
    for given in inside.values():
        if given.kind == "parameter":  # only the operand says whether it lies in main memory
            operand = one.operands[int(re.match(r"\((\d+)\)", given.attributes)[1])]
            total += min(read(given.name), _size(_arrays(outside, operand)))
    return total
