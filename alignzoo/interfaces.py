"""The classes that methods extend, one per kind, and those that data and evaluators extend. A method is built from its
validated options (``self.options``)."""

from alignzoo.contract.aggregation import Aggregation, TokenView
from alignzoo.contract.evaluator import EvaluationContext, Evaluator, Table
from alignzoo.contract.geometry import GeometryController, StepLoss
from alignzoo.contract.judge import Answered, Judge, JudgeContext, Preference, Verdict
from alignzoo.contract.loss import PreferenceLoss
from alignzoo.contract.reward import Reward
from alignzoo.contract.robust import RobustWrapper, Values
from alignzoo.contract.scoring import Response, RewardContext
from alignzoo.contract.selector import Selection, SelectionContext, SelectionModel, Selector
from alignzoo.contract.source import DataSource
from alignzoo.contract.step import SetupContext, StepContext

PerPair = Values
"""The name of :data:`Values` in plugin API 1."""

__all__ = [
    "Aggregation",
    "Answered",
    "DataSource",
    "EvaluationContext",
    "Evaluator",
    "GeometryController",
    "Judge",
    "JudgeContext",
    "PerPair",
    "Preference",
    "PreferenceLoss",
    "Response",
    "Reward",
    "RewardContext",
    "RobustWrapper",
    "Selection",
    "SelectionContext",
    "SelectionModel",
    "Selector",
    "SetupContext",
    "StepContext",
    "StepLoss",
    "Table",
    "TokenView",
    "Values",
    "Verdict",
]
