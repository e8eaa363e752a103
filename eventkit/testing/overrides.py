"""Overrides: other dependencies in place of those that handlers ask for, while a test runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from fast_depends.core import build_call_model

from eventkit.errors import DeclarationError
from eventkit.service import Service

Overrides: TypeAlias = Mapping[Callable[..., Any], Callable[..., Any]]
"""By the function that stands in `Depends(...)`: what is called instead. It may have dependencies of its own."""


@contextmanager
def overridden(services: Sequence[Service], overrides: Overrides) -> Iterator[None]:
    """For all handlers of these services, at any depth; afterwards all is as before.

    DeclarationError for a function that none of them depends on: the test would not test what it says.
    """
    models = [handler.parameters.dependencies for service in services for handler in service.handlers]
    providers = [model.dependency_provider for model in models if model is not None]
    before = [dict(provider.overrides) for provider in providers]
    try:
        for original, instead in overrides.items():
            shown = getattr(original, "__qualname__", repr(original))
            if not callable(instead):
                raise DeclarationError(
                    f"overrides={{{shown}: ...}}: give a function, such as lambda: fake, not {type(instead).__name__}"
                )
            mine = [provider for provider in providers if original in provider.dependencies]
            if not mine:
                raise DeclarationError(f"overrides: no handler of these services depends on {shown}")
            for provider in mine:
                # what provider.override() makes refuses a plain function with asynchronous dependencies
                provider.overrides[original] = build_call_model(
                    instead, dependency_provider=provider, serializer_cls=None, is_sync=False
                )
        yield
    finally:
        for provider, was in zip(providers, before, strict=True):
            provider.overrides = was
