"""A compiled program's own text, read: which instruction runs how often, and what it sends to other chips.

XLA's cost analysis counts a loop's body once. Here every instruction is counted as often as the loops round it turn, by
their known trip count, or from 0 to the one constant that their condition compares with (as those of `jax.lax.scan`).
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SIZES = {"pred": 1, "s4": 0.5, "u4": 0.5, "c64": 8, "c128": 16} | {
    f"{kind}{bits}": bits // 8 for kind in ("s", "u", "f", "bf") for bits in (8, 16, 32, 64)
}
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations|true_computation|false_computation)=")


class Array(NamedTuple):
    """Type, sizes and whether it lies in main memory (and not in a TPU's on-chip one)."""

    dtype: str
    sizes: tuple[int, ...]
    in_memory: bool

    @property
    def bytes(self) -> float:
        """Bytes of all numbers; types that are no numbers, such as tokens, have none."""
        return math.prod(self.sizes) * SIZES.get(self.dtype, 1 if self.dtype.startswith("f8") else 0)


class Instruction(NamedTuple):
    """One line: its result's arrays, its kind, the names of its operands and its attributes as printed."""

    name: str
    arrays: tuple[Array, ...]
    kind: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def called(self) -> list[str]:
        """Computations that it runs."""
        names = []
        for match in _CALLED.finditer(self.attributes):
            tail = self.attributes[match.end() :]
            names += re.findall(r"%([\w.\-]+)", tail[: tail.index("}")] if tail[0] == "{" else tail.split(",")[0])
        return names


Computation = dict[str, Instruction]


class Visit(NamedTuple):
    """An instruction where it runs: `times` a step, inside loops of `loops` turns; `fused` into `outer`, or not."""

    instruction: Instruction
    computation: Computation
    times: int
    loops: tuple[int, ...]
    fused: bool
    asynchronous: bool
    outer: str


class Program(NamedTuple):
    """Computations by name, and which of them is run."""

    computations: dict[str, Computation]
    entry: str


def arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a printed type such as `(f32[2,3]{1,0}, s32[])`."""
    return tuple(
        Array(dtype, tuple(int(size) for size in sizes.split(",") if size), "S(" not in layout)
        for dtype, sizes, layout in _ARRAY.findall(text)
    )


def parse(text: str) -> Program:
    """Read what `compiled.as_text()` gives."""
    computations: dict[str, Computation] = {}
    entry, here = "", {}
    for line in text.splitlines():
        if found := _LINE.match(line):
            root, name, kind_of, kind, rest = found.groups()
            operands, attributes = _split(rest)
            literal = f"({operands}){attributes}" if kind in ("constant", "parameter") else attributes
            names = tuple(re.findall(r"%([\w.\-]+)", operands))
            here[name] = Instruction(name, arrays(kind_of), kind, names, literal, bool(root))
        elif found := _HEAD.match(line):
            here = computations.setdefault(found[2], {})
            entry = found[2] if found[1] else entry
    return Program(computations, entry)


def _split(rest: str) -> tuple[str, str]:
    """Operands and attributes, at the bracket that closes the operands."""
    depth = 1
    for at, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return rest[:at], rest[at + 1 :]
    return rest, ""


def trips(program: Program, loop: Instruction) -> int | None:
    """Turns of a `while`; None where its text does not tell."""
    if known := re.search(r"known_trip_count\D+(\d+)", loop.attributes):
        return int(known[1])
    condition, body = (
        program.computations[re.search(rf"{part}=%?([\w.\-]+)", loop.attributes)[1]] for part in ("condition", "body")
    )
    bounds = [_value(i) for i in condition.values() if i.kind == "constant" and i.arrays[0].dtype in ("s32", "u32")]
    return -(-bounds[0] // _stride(condition, body)) if len(bounds) == 1 else None


def _value(constant: Instruction) -> int:
    return int(constant.attributes[1 : constant.attributes.index(")")])


def _stride(condition: Computation, body: Computation) -> int:
    """What a loop adds to its counter: 1, or 2 where XLA has unrolled the pieces of a product and its gather."""
    read = [i for i in condition.values() if i.kind == "get-tuple-element"]
    root = next(i for i in body.values() if i.root)
    if len(read) != 1 or root.kind != "tuple":
        return 1
    counter = body[root.operands[int(re.search(r"index=(\d+)", read[0].attributes)[1])]]
    added = [body[name] for name in counter.operands if counter.kind == "add" and body[name].kind == "constant"]
    return _value(added[0]) if added else 1


def walk(program: Program) -> Iterator[Visit]:
    """Every instruction of a step; a loop whose turns nobody can tell counts once."""
    yield from _walk(program, program.entry, 1, (), False, False, program.entry)


def _walk(program, name, times, loops, fused, asynchronous, outer) -> Iterator[Visit]:
    computation = program.computations[name]
    for one in computation.values():
        yield Visit(one, computation, times, loops, fused, asynchronous, outer)
        if one.kind == "while":
            turns = trips(program, one) or 1
            for called in one.called:
                yield from _walk(program, called, times * turns, (*loops, turns), fused, asynchronous, called)
        elif one.kind in ("fusion", "call", "conditional", "async-start"):
            inside, late = fused or one.kind == "fusion", asynchronous or one.kind == "async-start"
            for called in one.called:
                yield from _walk(program, called, times, loops, inside, late, outer if inside else called)


class Collective(NamedTuple):
    """One communication: `bytes` of the whole array that its group of chips puts together, sums or exchanges."""

    kind: str
    bytes: float
    group: tuple[int, ...]
    times: int
    loops: tuple[int, ...]
    asynchronous: bool
    gathers: tuple[Array, ...]  # what every chip has in full afterwards; empty where each gets a part or a sum

    @property
    def sent(self) -> float:
        """Bytes a chip sends (and receives) each time: of a ring, the least that there can be."""
        share = 1 if self.kind == "collective-permute" else 1 - 1 / max(len(self.group), 1)
        return self.bytes * share * (2 if self.kind == "all-reduce" else 1)


def collectives(program: Program) -> list[Collective]:
    """All communication of a step. What a TPU cuts into pieces of one channel, to hide it, is one."""
    found = {}
    for visit in walk(program):
        one = visit.instruction
        kind = one.kind.removesuffix("-start")
        if kind not in KINDS:
            continue
        channel = re.search(r"channel_id=(\d+)", one.attributes)
        # A TPU's reduce-scatter is an all-reduce fused with the slice that is kept of it.
        scatter = kind == "all-reduce" and visit.fused
        kind, late = ("reduce-scatter", False) if scatter else (kind, visit.asynchronous or visit.fused)
        late = late or one.kind.endswith("-start")
        key = (visit.outer, channel[1] if channel else one.name)
        found.setdefault(key, _collective(kind, visit, late))
    return list(found.values())


def _collective(kind: str, visit: Visit, late: bool) -> Collective:
    one, group = visit.instruction, _group(visit.instruction.attributes)
    # Started now and finished later: the result stands behind as many operands, and before counters.
    both = one.kind in ("all-gather-start", "collective-permute-start")
    given = [array for array in one.arrays if array.sizes or not both]
    result = tuple(given[len(given) // 2 :] if both else given)
    size = sum(array.bytes for array in result) * (len(group) if one.kind.startswith("reduce-scatter") else 1)
    # A shard written into zeros and summed is a gather too: XLA's way where shards do not fill a TPU's tiles.
    padded = kind == "all-reduce" and all("dynamic-update-slice" in name for name in one.operands)
    return Collective(
        kind, size, group, visit.times, visit.loops, late, result if kind == "all-gather" or padded else ()
    )


def _group(attributes: str) -> tuple[int, ...]:
    """The chips of the first group, by their place in the mesh, from any of the three ways that XLA writes them."""
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\](?:,? ?device_ids=\(([^)]*)\))? *\{([^}]*)\}", attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", named[1])}
        moving = set(re.findall(r"'([^']+)'", named[3]))
        ids = np.arange(math.prod(sizes.values())).reshape(list(sizes.values()))
        return tuple(ids[tuple(slice(None) if name in moving else 0 for name in sizes)].ravel().tolist())
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        sizes, order = ([int(n) for n in (iota[i] or "").split(",") if n] for i in (3, 4))
        ids = np.arange(math.prod(sizes)).reshape(sizes).transpose(order or None)
        return tuple(ids.reshape(int(iota[1]), int(iota[2]))[0].tolist())
    if plain := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return tuple(int(chip) for chip in plain[1].split(","))
    pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes)
    return (int(pairs[1]), int(pairs[2])) if pairs else (0,)
