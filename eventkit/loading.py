"""Loading: services by the name that a command line gives them, `module:service`."""

from __future__ import annotations

import difflib
import importlib
import traceback
from collections.abc import Sequence
from types import ModuleType

from eventkit.errors import DeclarationError
from eventkit.service import Router, Service


class NotLoaded(Exception):
    """There is no such service, or its module cannot be imported. Says what there is instead."""


def load_services(targets: Sequence[str]) -> list[Service]:
    """The services that these name, each once. A module is looked for on `sys.path`."""
    found: list[Service] = []
    for target in targets:
        found.extend(service for service in _load(target) if service not in found)
    return found


def _load(target: str) -> Sequence[Service]:
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise NotLoaded(f"{target!r} names no service: write module:service, such as shop.orders:service")
    module = _import(module_name)
    value: object = module
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            raise NotLoaded(f"there is no {path!r} in {module_name}{_instead(module, path)}") from None
    services = _services(value)
    if services:
        return services
    if isinstance(value, Router):
        raise NotLoaded(f"{target} is a Router: include it in a Service, and run that{_instead(module, path)}")
    raise NotLoaded(f"{target} is no Service and no list of them, but {type(value).__name__}{_instead(module, path)}")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise NotLoaded(f"{name} cannot be imported: {error} ({_place(error)})") from error
        raise NotLoaded(f"there is no module {error.name!r} here; it is looked for from the current folder") from error
    except DeclarationError as error:
        raise NotLoaded(f"{error} ({_place(error)})") from error


def _instead(module: ModuleType, path: str) -> str:
    """Which services the module has."""
    names = [name for name, value in vars(module).items() if _services(value)]
    if not names:
        return ""
    near = difflib.get_close_matches(path, names, n=1)
    return f"; did you mean {module.__name__}:{near[0]}?" if near else f"; its services: {', '.join(sorted(names))}"


def _services(value: object) -> Sequence[Service]:
    if isinstance(value, Service):
        return [value]
    if isinstance(value, list | tuple) and all(isinstance(item, Service) for item in value):
        return list(value)
    return []


def _place(error: BaseException) -> str:
    """Where in the user's code it was raised: the innermost line that is not eventkit's or Python's own."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and "/eventkit/" not in frame.filename.replace("\\", "/")
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "in eventkit"
