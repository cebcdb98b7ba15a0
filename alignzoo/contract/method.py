"""What all methods share, whatever their kind."""

from __future__ import annotations

from typing import Any, ClassVar

from alignzoo.contract.card import Options


class Method:
    """Built from its validated options; its state goes into checkpoints.

    Attributes:
        retired: what an older plugin API called on methods of a kind, and what to do in its place; a class that still
            has it is refused.
    """

    retired: ClassVar[dict[str, str]] = {}

    def __init__(self, options: Options) -> None:
        self.options: Any = options

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beyond the options: tensors, numbers and strings only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
