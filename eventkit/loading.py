"""Loading: services by the name that a command line gives them, `module:service`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from types import ModuleType

from eventkit.importing import NotLoaded, import_module
from eventkit.service import Router, Service

__all__ = ["NotLoaded", "load_services"]


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
    module = import_module(module_name)
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
