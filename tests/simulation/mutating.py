"""Changing the source of modules while they are imported; the files stay as they are.

A text must stand in its module exactly once, so that a line that was moved or rewritten shows at
once, as a change that no longer can be made.

Knows nothing of what is changed, nor why.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from msgspec import Struct


class Change(Struct, frozen=True):
    """A text of a module, and what is to stand there instead."""

    module: str
    old: str
    new: str


class NotOnce(Exception):
    """A text that is to be changed does not stand in its module exactly once."""


def changed(source: str, module: str, changes: Sequence[Change]) -> str:
    """Give a module's source with those of the changes that are meant for it, in their order."""
    for change in changes:
        if change.module == module:
            count = source.count(change.old)
            if count != 1:
                raise NotOnce(f"expected once in {module}, found {count} times:\n{change.old}")
            source = source.replace(change.old, change.new)
    return source


def source_of(module: str) -> str:
    """Read a module's source, without importing anything."""
    package, *rest = module.split(".")
    spec = PathFinder.find_spec(package)
    assert spec is not None, f"there is no {package}"
    assert spec.submodule_search_locations is not None, f"{package} is no package"
    path = Path(next(iter(spec.submodule_search_locations)), *rest)
    return path.with_suffix(".py").read_text(encoding="utf-8")


def install(changes: Sequence[Change]) -> None:
    """Have modules changed from now on; none of them may have been imported."""
    imported = {change.module for change in changes} & set(sys.modules)
    assert not imported, f"{sorted(imported)} were imported before they were changed"
    sys.meta_path.insert(0, _Finder(changes))


class _Finder(MetaPathFinder):
    # Finds the modules that are to be changed, where they would be found anyway.
    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes
        self._modules = {change.module for change in changes}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._modules:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path, self._changes)
        return spec


class _Loader(SourceFileLoader):
    # Compiles another text than stands in the file, and keeps nothing of it.
    def __init__(self, fullname: str, path: str, changes: Sequence[Change]) -> None:
        super().__init__(fullname, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname)
        assert source is not None
        source = changed(source, fullname, self._changes)
        return compile(source, self.get_filename(fullname), "exec", dont_inherit=True)
