"""The order book of the npm registry: installed on first use, and run by nodejs.mjs beside this.

Knows nothing of the exchange, nor of what its number is compared with.
"""

import asyncio
import shutil
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Final

from bench.speed.rounds import CannotMeasure
from deploy import state

PACKAGE: Final = "nodejs-order-book"
VERSION: Final = "10.1.1"

_PROGRAM: Final = Path(__file__).with_name("nodejs.mjs")


async def command(flow: Path) -> list[str | Path]:
    """Give the program that measures it on a flow, with everything it needs in place.

    Raises:
        CannotMeasure: there is no Node.js, or npm cannot install the package.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise CannotMeasure(f"{PACKAGE}: expected node and npm on PATH (https://nodejs.org)")
    directory = (Path(state.DIRECTORY) / "bench" / f"{PACKAGE}-{VERSION}").resolve()
    if not (directory / "node_modules" / PACKAGE).is_dir():
        await _install(npm, directory)
    return [node, _PROGRAM, directory, flow]


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    # npm installs into the nearest directory above that has a package.json, if this has none.
    (directory / "package.json").write_text("{}\n")


async def _install(npm: str, directory: Path) -> None:
    _make(directory)
    arguments = ("install", "--no-audit", "--no-fund", "--ignore-scripts", f"{PACKAGE}@{VERSION}")
    child = await asyncio.create_subprocess_exec(
        npm, *arguments, cwd=directory, stdout=PIPE, stderr=STDOUT
    )
    try:
        out, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        said = out.decode(errors="replace").strip()[-300:]
        raise CannotMeasure(f"{PACKAGE} {VERSION}: expected npm to install it, it said: {said}")
