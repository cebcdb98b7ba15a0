"""The plugin contract: cards, hooks, and the registry that finds them."""

from alignzoo.contract.card import PLUGIN_API, Card, Composition, Extension, Need, Options, Paper, Verified
from alignzoo.contract.kinds import KINDS
from alignzoo.plugin.hookspecs import hookimpl
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import Registry, list_methods, plugins_from, registry

__all__ = [
    "KINDS",
    "PLUGIN_API",
    "Card",
    "Composition",
    "Extension",
    "Need",
    "Options",
    "Paper",
    "Plugin",
    "Registry",
    "Verified",
    "hookimpl",
    "list_methods",
    "plugins_from",
    "registry",
]
