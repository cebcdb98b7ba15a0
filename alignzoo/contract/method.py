"""The common base of all methods."""

from __future__ import annotations

from typing import Any, ClassVar

from alignzoo.contract.card import Options


class Method:
    """Built from its validated options; its state goes into checkpoints.

    Attributes:
        retired: methods of an older plugin API, each with its replacement; a class that still defines one is
            rejected.
    """

    retired: ClassVar[dict[str, str]] = {}

    def __init__(self, options: Options) -> None:
        self.options: Any = options

    def state_dict(self) -> dict[str, Any]:
        """The state a resumed run needs beyond the options: tensors, numbers and strings only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
