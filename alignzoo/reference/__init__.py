"""Log-probs under the frozen reference: computed once before training and cached between runs, or in every step.

``keys`` (what a value depends on) -> ``shards`` (values on disk) -> ``store`` (all values of a run) -> ``compute``
(missing values) -> ``cached`` (the loop's interface). ``frozen`` is the reference as a model.
"""
