"""The whole plugin contract. A plugin is a module without heavy imports, named by an entry point of group ``alignzoo``.

::

    from alignzoo.plugin import Card, hookimpl

    @hookimpl
    def alignzoo_methods():
        return [Card(kind="loss", name="mine", target="my_package.mine:Mine", ...)]
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from alignzoo.plugin.card import Card, Composition

hookspec = pluggy.HookspecMarker("alignzoo")
hookimpl = pluggy.HookimplMarker("alignzoo")


@hookspec
def alignzoo_methods() -> Iterable[Card | Composition]:  # type: ignore[empty-body]
    """The cards (and named compositions) this plugin brings. Must not import torch."""
