"""Log-probs under the frozen reference: computed once before training and kept between runs, or in every step.

``keys`` (what a value depends on) -> ``shards`` (values on disk) -> ``store`` (all values of a run) -> ``compute``
(those that are missing) -> ``cached`` (what the loop asks). ``frozen`` is the reference as a model.
"""
