"""The house rules: who imports whom, how long things get, and what never appears."""

import ast
import re
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent
ROOT = HOME / "dalle2_jax"
ROWS = [  # a row may import the rows above it; folders of one row never each other
    {"errors"},
    {"config", "files"},
    {"layers", "diffusion", "shard", "data"},
    {"clip", "prior", "decoder"},
    {"components", "stages", "batching"},
    {"cascade"},
    {"unclip", "convert"},
    {"manipulate"},
    {"bench", "probe"},
    {"evaluate", "train"},
    {"plan"},
    {"demo"},
    {"cli"},
]
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}
PAPER = ["2", "2.1", "2.2", "3", "3.1", "3.2", "3.3", "4", "5"]
FILES = [p for p in sorted(ROOT.rglob("*.py")) if p.name != "__init__.py"]
TREES = {p: ast.parse(p.read_text(encoding="utf-8")) for p in FILES}
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try)
NEVER = {"tensorflow", "clu"}  # nowhere in the package
LAZY = {
    "torch",
    "transformers",
    "tensorflow_datasets",
    "wandb",
    "gradio",
}  # only inside functions


def part(path):
    """dalle2_jax/prior/diffusion.py -> prior; dalle2_jax/unclip.py -> unclip."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(nodes):
    """Full dotted names that the given import nodes bring in."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def depth(node, level=0):
    """The deepest stack of blocks in a function; elif stays on the level of its if."""
    level += isinstance(node, BLOCKS)
    deepest = [level]
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef):
            both = isinstance(node, ast.If) and isinstance(child, ast.If)
            deepest.append(depth(child, level - (both and node.orelse == [child])))
    return max(deepest)


def name_of(path):
    return str(path.relative_to(HOME))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_layers_of_imports(path):
    for name in imports(ast.walk(TREES[path])):
        parts = name.split(".")
        assert parts[0] not in NEVER, f"{path} imports {name}"
        assert not name.startswith("flax.nnx"), f"{path} imports {name}"
        if parts[0] == ROOT.name and len(parts) > 1 and parts[1] in RANK:
            allowed = parts[1] == part(path) or RANK[parts[1]] < RANK[part(path)]
            assert allowed, f"{path} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_packages_are_imported_where_they_are_used(path):
    top = {name.split(".")[0] for name in imports(TREES[path].body)}
    assert not top & LAZY
    if part(path) == "cli":
        heavy = {"jax", "flax", "optax", "orbax", "grain", "matplotlib"}
        assert not top & heavy, "--help must not wait for these"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_budget(path):
    assert ast.get_docstring(TREES[path]), "say what the file is"
    assert path.read_text(encoding="utf-8").count("\n") <= 400
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef):
            args = node.args
            assert node.end_lineno - node.lineno < 60, node.name
            assert depth(node) <= 3, node.name
            assert len(args.posonlyargs + args.args + args.kwonlyargs) <= 8, node.name
            assert args.kwarg is None, f"{node.name}: spell the arguments out"


def test_no_class_of_ours_has_a_base_of_ours():
    nodes = [node for tree in TREES.values() for node in ast.walk(tree)]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    errors = {
        c.name
        for c in ast.walk(TREES[ROOT / "errors.py"])
        if isinstance(c, ast.ClassDef)
    }
    ours = {c.name for c in classes} - errors
    bases = {c.name: {ast.unparse(b).split(".")[-1] for b in c.bases} for c in classes}
    assert not [name for name in bases if bases[name] & ours]


def test_every_section_of_the_paper_has_a_file():
    docs = " ".join(ast.get_docstring(tree) or "" for tree in TREES.values())
    assert not [section for section in PAPER if f"unCLIP §{section}:" not in docs]


def test_public_functions_say_what_they_do():
    missing = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path, tree in TREES.items()
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not missing


def test_no_path_of_one_machine_is_committed():
    text = [p for p in HOME.rglob("*") if p.suffix in {".py", ".md", ".sh", ".toml"}]
    ours = [p for p in text if not {".venv", "runs", "build"} & set(p.parts)]
    pattern = re.compile(r"(?<![\w.~-])/(work|farm|root|home/\w+)/")
    assert not [
        name_of(p) for p in ours if pattern.search(p.read_text(encoding="utf-8"))
    ]
