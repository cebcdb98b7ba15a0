"""What all methods share, whatever their kind."""

from __future__ import annotations

from typing import Any

from alignzoo.contract.card import Options


class Method:
    """Built from its validated options; its state goes into checkpoints."""

    def __init__(self, options: Options) -> None:
        self.options: Any = options

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beyond the options: tensors, numbers and strings only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
