"""The import table of the design, and what pure code may not touch, as rules that run.

One distribution holds all packages, so nothing but this test keeps them apart. Each banned name
comes with what to use instead. Modules are read as text, never imported.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

WHERE = {
    "dex_protocol": ROOT / "shared" / "dex_protocol",
    "dex_engine": ROOT / "shared" / "dex_engine",
    "dex_runtime": ROOT / "shared" / "dex_runtime",
    "dex_server": ROOT / "services" / "server" / "dex_server",
    "dex_client": ROOT / "services" / "client" / "dex_client",
    "dex_guard": ROOT / "services" / "guard" / "dex_guard",
    "deploy": ROOT / "deploy",
}

MAY_IMPORT: dict[str, set[str]] = {
    "dex_protocol": {"msgspec"},
    "dex_engine": {"dex_protocol", "sortedcontainers", "msgspec"},
    "dex_runtime": {"dex_protocol", "msgspec", "nats", "nkeys", "opentelemetry"},
    "dex_runtime.options": {"dex_runtime.connection", "click"},
    "dex_server.replication": {"dex_protocol", "dex_engine", "msgspec"},
    "dex_server.jetstream": {
        "dex_server.replication.ports",
        "dex_protocol",
        "dex_runtime",
        "msgspec",
        "nats",
    },
    "dex_server": {"dex_protocol", "dex_engine", "dex_runtime", "msgspec", "click"},
    "dex_client": {
        "dex_protocol",
        "dex_engine",
        "dex_runtime",
        "msgspec",
        "click",
        "rich",
        "hdrh",
    },
    "dex_guard": {"dex_protocol", "dex_runtime", "msgspec", "click"},
    "deploy": {"dex_protocol", "dex_runtime", "msgspec", "click", "nats", "nkeys", "trustme"},
}
"""What a package may import besides the standard library and itself; the longest name counts."""

PURE = ("dex_protocol", "dex_engine", "dex_server.replication")
"""Synchronous and deterministic: data in, data out."""

PURE_BUT_FOR_STATISTICS = (
    "dex_client.chain",
    "dex_client.comparison",
    "dex_client.decimals",
    "dex_client.ids",
    "dex_client.retry",
    "dex_client.settling",
    "dex_client.load.profile",
    "dex_client.load.record",
    "dex_client.load.report",
    "dex_client.load.verification",
    "dex_guard.flood",
)
"""Pure, but they may use floats, and a `Random` that is handed to them."""

INSTEAD = {
    "time": "the commit's time, or a time that is handed in",
    "datetime": "microseconds since 1970, as an integer",
    "random": "a seeded `random.Random` that is handed in, outside the engine",
    "secrets": "an id that is handed in",
    "uuid": "an id that is handed in",
    "os": "what is needed, handed in by the shell",
    "pathlib": "bytes, handed in by the shell",
    "socket": "bytes, handed in by the shell",
    "subprocess": "what is needed, handed in by the shell",
    "threading": "one thread: return what is to be done",
    "asyncio": "a plain function: return what is to be done, the shell awaits",
    "logging": "an effect or a return value, which the shell logs",
    "nats": "a port of dex_server.replication.ports",
    "opentelemetry": "an effect or a return value, which the shell records",
}
"""Modules that pure code does without, each with what it uses instead."""

ADAPTERS_ARE_WIRED_IN = "dex_server.cli"


class Module(NamedTuple):
    """A source file of ours: its dotted name, its path from the root, and its syntax tree."""

    name: str
    path: str
    tree: ast.Module


def parsed(name: str, source: str) -> Module:
    return Module(name, name, ast.parse(source))


def modules() -> Iterator[Module]:
    for package, folder in WHERE.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            name = ".".join(parts).removesuffix(".__init__")
            yield Module(name, str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8")))


MODULES = list(modules())


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def layer_of(name: str) -> str:
    return max((layer for layer in MAY_IMPORT if is_in(name, layer)), key=len)


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Give each imported module with its line; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: name the package in full"
            assert node.module is not None
            yield node.lineno, node.module
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def forbidden_imports(module: Module) -> list[str]:
    layer = layer_of(module.name)
    found = []
    for line, name in imports(module):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or is_in(name, layer) or is_in(layer, name):
            continue
        if any(is_in(name, allowed) or is_in(allowed, name) for allowed in MAY_IMPORT[layer]):
            continue
        if layer == "dex_server" and is_in(name, "dex_server"):
            continue
        allowed = ", ".join(sorted(MAY_IMPORT[layer]))
        found.append(f"{module.path}:{line}: {layer} imports {name}; it may import {allowed}")
    return found


def wired_elsewhere(module: Module) -> list[str]:
    if is_in(module.name, "dex_server.jetstream") or module.name == ADAPTERS_ARE_WIRED_IN:
        return []
    return [
        f"{module.path}:{line}: imports {name}; take the port of dex_server.replication.ports, "
        f"{ADAPTERS_ARE_WIRED_IN} puts the adapter in"
        for line, name in imports(module)
        if is_in(name, "dex_server.jetstream")
    ]


def impurities(module: Module) -> list[str]:
    """Find what makes a pure module impure, each with what to use instead."""
    strict = any(is_in(module.name, package) for package in PURE)
    allowed = {"random"} if not strict else set()
    found = [
        (line, f"imports {name}", INSTEAD[top])
        for line, name in imports(module)
        if (top := name.partition(".")[0]) in INSTEAD and top not in allowed
    ]
    if not strict:
        found += [
            (line, f"imports {name}", "the `Random` that is handed in")
            for line, name in imports(module)
            if is_in(name, "random") and name not in ("random", "random.Random")
        ]
    for node in ast.walk(module.tree):
        found += list(_impure(node, strict=strict))
    return [f"{module.path}:{line}: {what}; instead: {instead}" for line, what, instead in found]


def _impure(node: ast.AST, *, strict: bool) -> Iterator[tuple[int, str, str]]:
    if isinstance(node, ast.AsyncFunctionDef) and not _is_of_a_protocol(node):
        yield node.lineno, "is asynchronous", "a plain function: return what is to be done"
    if isinstance(node, ast.For | ast.comprehension) and _is_set(node.iter):
        yield node.iter.lineno, "walks a set", "a list, a dict or sorted(): sets have no order"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        match node.func.id:
            case "hash" | "id":
                instead = "hashlib, or a key of the data: the same in every process"
                yield node.lineno, f"calls {node.func.id}()", instead
            case "open" | "print" | "input":
                yield node.lineno, f"calls {node.func.id}()", "a return value"
            case "float" if strict:
                yield node.lineno, "calls float()", "integers: ticks, lots, units of 10^-18"
    if strict and isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield node.lineno, f"has the float {node.value}", "integers, with their unit in the name"
    if strict and isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        yield node.lineno, "divides with /", "// or divmod, and a rule for the rest"


def _is_of_a_protocol(node: ast.AsyncFunctionDef) -> bool:
    # A port says what an adapter does; in a body of a docstring and `...` nothing runs.
    return all(
        isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) for each in node.body
    )


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("set", "frozenset")
    )


def is_pure(module: Module) -> bool:
    return any(is_in(module.name, package) for package in (*PURE, *PURE_BUT_FOR_STATISTICS))


def test_packages_import_what_the_design_lets_them() -> None:
    assert [line for module in MODULES for line in forbidden_imports(module)] == []


def test_adapters_are_wired_in_one_place() -> None:
    assert [line for module in MODULES for line in wired_elsewhere(module)] == []


def test_pure_code_touches_nothing_impure() -> None:
    assert [line for module in MODULES if is_pure(module) for line in impurities(module)] == []


def test_every_package_is_where_the_design_has_it() -> None:
    for package, folder in WHERE.items():
        assert (folder / "__init__.py").is_file(), package


def test_every_pure_module_of_the_list_is_there() -> None:
    names = {module.name for module in MODULES}

    assert names >= {*PURE, *PURE_BUT_FOR_STATISTICS}


# --- The rules themselves -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("dex_protocol.codec", "import nats"),
        ("dex_protocol.codec", "from dex_engine import Market"),
        ("dex_engine.book", "import dex_runtime.clock"),
        ("dex_runtime.clock", "from dex_server.cli import main"),
        ("dex_server.replication.replica", "from dex_runtime import clock"),
        ("dex_server.replication.replica", "from dex_server.jetstream.log import Log"),
        ("dex_server.replication.replica", "def f():\n    import nats"),
        ("dex_server.jetstream.log", "from dex_server.replication.replica import Replica"),
        ("dex_server.jetstream.log", "from dex_server.replication import replica"),
        ("dex_server.driver", "import nats.errors"),
        ("dex_client.client", "from dex_server.cli import main"),
        ("dex_client.client", "from deploy.local import main"),
        ("dex_guard.flood", "import dex_engine"),
        ("dex_guard.guard", "from dex_server import connections"),
        ("deploy.local", "import dex_engine"),
    ],
)
def test_forbidden_import_is_found(name: str, source: str) -> None:
    assert forbidden_imports(parsed(name, source))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("dex_engine.book", "from dex_engine.order import Order\nimport heapq"),
        ("dex_server.jetstream.log", "from dex_server.replication.ports import Log"),
        ("dex_server.jetstream.log", "from dex_server.jetstream import api"),
        ("dex_server.driver", "from dex_server import queries\nimport dex_engine"),
        ("deploy.local", "from deploy import nodes"),
    ],
)
def test_allowed_import_is_not(name: str, source: str) -> None:
    assert forbidden_imports(parsed(name, source)) == []


def test_adapter_wired_elsewhere_is_found() -> None:
    source = "from dex_server.jetstream.log import JetStreamLog"

    assert wired_elsewhere(parsed("dex_server.driver", source))
    assert wired_elsewhere(parsed("dex_server.cli", source)) == []


@pytest.mark.parametrize(
    "source",
    [
        *(f"import {name}" for name in INSTEAD),
        "from time import monotonic",
        "from datetime import datetime",
        "from os.path import join",
        "async def f(): pass",
        "async def f(): await g()",
        "x = 0.5",
        "x = float('1')",
        "x = 1 / 2",
        "x = hash('a')",
        "x = id(1)",
        "open('x')",
        "for x in {1, 2}: pass",
        "x = [y for y in set(z)]",
        "x = {y: 1 for y in frozenset(z)}",
        "for x in {y for y in z}: pass",
    ],
)
def test_impurity_is_found_with_what_to_use_instead(source: str) -> None:
    (line, *_) = impurities(parsed("dex_engine.book", source))

    assert "; instead: " in line


@pytest.mark.parametrize(
    "source",
    [
        "x = 1 // 2",
        "x = 'time'",
        "for x in sorted({1, 2}): pass",
        "x = 1 in {1, 2}",
        "x.id(1)",
        "async def append(self): 'Says what an adapter does.'",
    ],
)
def test_what_is_pure_is_not(source: str) -> None:
    assert impurities(parsed("dex_engine.book", source)) == []


def test_statistics_may_use_floats_and_a_random_that_is_handed_in() -> None:
    allowed = "from random import Random\nx = float(1) / 2.0"

    assert impurities(parsed("dex_client.load.report", allowed)) == []
    assert impurities(parsed("dex_client.retry", "from random import random"))
    assert impurities(parsed("dex_client.retry", "import time"))
