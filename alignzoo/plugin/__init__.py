"""The plugin contract: cards, hooks, and the registry that finds them."""

from alignzoo.contract.aggregation import AggregationCard
from alignzoo.contract.card import (
    PLUGIN_API,
    Card,
    Composition,
    DataExtension,
    EvaluatorExtension,
    Extension,
    Need,
    Options,
    Paper,
    Verified,
)
from alignzoo.contract.geometry import GeometryCard
from alignzoo.contract.kinds import KINDS
from alignzoo.contract.loss import LossCard
from alignzoo.contract.reward import RewardCard
from alignzoo.contract.robust import RobustCard
from alignzoo.contract.selector import SelectorCard
from alignzoo.plugin.hookspecs import hookimpl
from alignzoo.plugin.plugin import Plugin
from alignzoo.plugin.registry import Registry, list_methods, plugins_from, registry

__all__ = [
    "KINDS",
    "PLUGIN_API",
    "AggregationCard",
    "Card",
    "Composition",
    "DataExtension",
    "EvaluatorExtension",
    "Extension",
    "GeometryCard",
    "LossCard",
    "Need",
    "Options",
    "Paper",
    "Plugin",
    "Registry",
    "RewardCard",
    "RobustCard",
    "SelectorCard",
    "Verified",
    "hookimpl",
    "list_methods",
    "plugins_from",
    "registry",
]
