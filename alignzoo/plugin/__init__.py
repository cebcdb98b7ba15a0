"""The plugin contract: cards, hooks, and the registry that finds them."""

from alignzoo.plugin.card import KINDS, PLUGIN_API, Card, Composition, Kind, Need, Options, Paper, Verified
from alignzoo.plugin.hookspecs import hookimpl
from alignzoo.plugin.registry import Plugin, Registry, list_methods, load_method, registry

__all__ = [
    "KINDS",
    "PLUGIN_API",
    "Card",
    "Composition",
    "Kind",
    "Need",
    "Options",
    "Paper",
    "Plugin",
    "Registry",
    "Verified",
    "hookimpl",
    "list_methods",
    "load_method",
    "registry",
]
