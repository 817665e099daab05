"""The house's own rules: floors, what Linen is used for, nothing dangerous, nothing heavy where `--help` passes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "chinchilla_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# Lowest first; a room imports only from floors below its own, and from itself.
FLOORS = [
    {"config", "disk", "locks", "errors", "types"},
    {"parallel"},
    {"data", "model", "optim"},
    {"objectives", "scaling", "configs"},
    {"finetuning", "planning", "tasks"},
    {"training", "inference"},
    {"aot", "evaluation", "interop", "serving"},
    {"tuning"},
    {"commands"},
    {"__main__"},
]
GROUND = FLOORS[0]  # single files that may lean on each other
LINEN = {
    "Module", "compact", "scan", "remat", "with_logical_partitioning", "get_partition_spec", "logical_to_mesh_sharding",
    "unbox", "meta", "broadcast", "initializers", "PARTITION_NAME",
}  # fmt: skip
FORBIDDEN_IMPORTS = ("pickle", "dill", "cloudpickle", "shelve", "marshal", "tensorflow", "torch", "clu",
                     "flax.training", "flax.nnx", "jax.experimental.pjit")  # fmt: skip
UNMIRRORED = ("configs.", "data.documents")  # settings as data, and dataclasses without logic
FORBIDDEN_CALLS = {"eval", "exec", "__import__"}
HEAVY = (
    "jax",
    "jaxlib",
    "numpy",
    "flax",
    "optax",
    "orbax",
    "tensorflow_datasets",
    "sentencepiece",
    "tokenizers",
    "safetensors",
    "gguf",
    "matplotlib",
    "rich",
)


def name(path: Path) -> str:
    """The dotted name of a module, below the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The room of a module: its first folder, or the one that has a floor of its own."""
    own = [r for floor in FLOORS for r in floor if module == r or module.startswith(r + ".")]
    return max(own, key=len) if own else module.split(".")[0]


def floor(module: str) -> int:
    """How high a module's room is."""
    return next(i for i, rooms in enumerate(FLOORS) if room(module) in rooms)


def imports(tree: ast.AST) -> list[str]:
    """Every dotted name that a tree imports; `from a import b` counts as a.b."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def wrong_arrows(module: str, source: str) -> list[str]:
    """The imports of a module that go up, or sideways into another room."""
    wrong = []
    for target in imports(ast.parse(source)):
        if not target.startswith("chinchilla_jax."):
            continue
        target = target.removeprefix("chinchilla_jax.")
        if (
            target.split(".")[0] == "__version__"
            or room(target) == room(module)
            or {room(target), room(module)} <= GROUND
        ):
            continue
        if floor(target) >= floor(module):
            wrong.append(f"{module} -> {target}")
    return wrong


def arrows(sources: dict[str, str]) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports anywhere, in its functions too; for sources by module."""

    def module(target: str) -> str:
        while target and target not in sources:
            target = target.rpartition(".")[0]
        return target

    found = {}
    for name, source in sources.items():
        targets = (i for i in imports(ast.parse(source)) if i.startswith("chinchilla_jax."))
        found[name] = {module(target.removeprefix("chinchilla_jax.")) for target in targets} - {name, ""}
    return found


def circles(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is left of a graph when whatever leads to no circle is taken away."""
    left = dict(graph)
    while ends := [name for name, targets in left.items() if not targets & left.keys()]:
        left = {name: targets for name, targets in left.items() if name not in ends}
    return {name: targets & left.keys() for name, targets in left.items()}


def names_used(tree: ast.AST, owner: str) -> set[str]:
    """Attributes taken from a name, such as `nn`."""
    nodes = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name))
    return {node.attr for node in nodes if node.value.id == owner}


def calls(tree: ast.AST) -> set[str]:
    """Plain names that are called."""
    return {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


def test_files_and_functions_stay_small():
    """At most 400 lines and 60."""
    sizes = {}
    for path in FILES:
        source = path.read_text()
        functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        longest = max((n.end_lineno - n.lineno + 1 for n in functions), default=0)
        sizes[name(path)] = source.count("\n"), longest
    assert not {module: size for module, size in sizes.items() if size[0] > 400 or size[1] > 60}


def test_every_room_has_a_floor():
    for path in FILES:
        if name(path):
            floor(name(path))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_down(path):
    if name(path):
        assert not wrong_arrows(name(path), path.read_text())


def test_wrong_arrows_are_seen():
    up = "from chinchilla_jax.training import step"
    assert wrong_arrows("model.attention", up) == ["model.attention -> training.step"]
    assert wrong_arrows("model.attention", "import chinchilla_jax.data.store") == ["model.attention -> data.store"]
    assert wrong_arrows("commands.pretrain", up) == []
    assert wrong_arrows("training.loop", "from chinchilla_jax.aot import compile") == ["training.loop -> aot.compile"]
    assert wrong_arrows("training.loop", "from chinchilla_jax.scaling import counts") == []


def test_no_room_has_a_circle_inside():
    assert not circles(arrows({name(path): path.read_text() for path in FILES if name(path)}))


def test_circles_are_seen():
    of = "from chinchilla_jax.data import {}".format
    graph = arrows({"data.a": of("b"), "data.b": f"def f():\n    {of('c')}", "data.c": "", "data.d": of("a")})
    assert graph == {"data.a": {"data.b"}, "data.b": {"data.c"}, "data.c": set(), "data.d": {"data.a"}}
    assert not circles(graph)
    assert circles(graph | {"data.c": {"data.a"}}).keys() == {"data.a", "data.b", "data.c", "data.d"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_dangerous(path):
    tree = ast.parse(path.read_text())
    bad = [i for i in imports(tree) if any(i == f or i.startswith(f + ".") for f in FORBIDDEN_IMPORTS)]
    assert not bad, "no pickle, no TensorFlow, no PyTorch, no NNX, no flax.training"
    assert not calls(tree) & FORBIDDEN_CALLS
    assert "pmap" not in names_used(tree, "jax")


def axes_named(tree: ast.AST) -> list[str]:
    """The mesh axes that code asks a mesh for by name, as in `mesh.shape["fsdp"]`."""
    nodes = (n for n in ast.walk(tree) if isinstance(n, ast.Subscript) and isinstance(n.slice, ast.Constant))
    return [n.slice.value for n in nodes if getattr(n.value, "attr", "") == "shape" and isinstance(n.slice.value, str)]


def test_mesh_axes_have_names_inside_parallel_alone():
    assert axes_named(ast.parse('program.mesh.shape["data"] * x.shape[0]')) == ["data"]
    found = {name(path): axes_named(ast.parse(path.read_text())) for path in FILES}
    assert {module for module, axes in found.items() if axes and room(module) != "parallel"} == set()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_linen_is_thin(path):
    tree = ast.parse(path.read_text())
    taken = {i for i in imports(tree) if i.startswith("flax.")} - {"flax.linen", "flax.linen.partitioning"}
    assert not taken, "Flax is reached as `from flax import linen as nn`"
    assert names_used(tree, "nn") <= LINEN


@pytest.mark.parametrize("module", ["__main__", "config", "errors", "commands.cli", "model.presets"])
def test_nothing_heavy_at_import(module):
    """Imported in a fresh interpreter, since this one has everything already."""
    code = f"import sys, chinchilla_jax.{module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(seen.stdout.split()) & set(HEAVY)


def test_scaling_does_without_jax():
    """`plan`, `fit` and `compare` are for environments that hold numpy and scipy alone."""
    paths = [p for room in ("scaling", "planning") for p in sorted((PACKAGE / room).glob("*.py"))]
    modules = [f"chinchilla_jax.{name(p)}" for p in paths]
    code = f"import sys, {', '.join(modules)}; print(*{{m.split('.')[0] for m in sys.modules}})"
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(seen.stdout.split()) & (set(HEAVY) - {"numpy"})


def test_no_environment_variable_is_configuration():
    reads = [name(p) for p in FILES if "os.environ" in p.read_text() or "os.getenv" in p.read_text()]
    assert reads == ["commands.checks", "commands.startup"], "which show them, and take them away"


def test_tests_mirror_the_code():
    """`data/x.py` is tested by `tests/data/test_x.py`."""
    modules = [path.relative_to(PACKAGE) for path in FILES if path.name != "__init__.py"]
    modules = [path for path in modules if not name(PACKAGE / path).startswith(UNMIRRORED)]
    assert not [path for path in modules if not (ROOT / "tests" / path.parent / f"test_{path.name}").exists()]
