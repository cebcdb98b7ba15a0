"""What of a model a step must leave as it found it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alignzoo.lazy import torch

_MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Snapshot:
    """Weights, buffers, flags, modes and hooks of a model at one moment."""

    def __init__(self, model: Any) -> None:
        self._parts: dict[str, dict[str, Any]] = {
            "weights": {name: (id(p), p.detach().clone()) for name, p in model.named_parameters()},
            "buffers": {name: (0, buffer.clone()) for name, buffer in model.named_buffers()},
            "requires_grad flags": {name: p.requires_grad for name, p in model.named_parameters()},
            "training modes": {name: module.training for name, module in model.named_modules()},
            "hooks": dict(_hooks(model)),
        }

    def changes(self, model: Any) -> Iterator[str]:
        """What is not as it was, one phrase per kind of thing with the first name."""
        now = Snapshot(model)._parts
        for what, before in self._parts.items():
            after = now[what]
            changed = [name for name in {**before, **after} if not _same(before.get(name), after.get(name))]
            if changed:
                others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
                yield f"changed {what} ({changed[0] or 'the model'}{others})"


def _hooks(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        yield name, (*(tuple(getattr(module, kind)) for kind in _MODULE_HOOKS), module.__dict__.get("forward"))
    for name, parameter in model.named_parameters():
        found = (parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None))
        yield name, tuple(tuple(hooks or ()) for hooks in found)


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, tuple) and isinstance(after, tuple) and len(before) == 2 and torch.is_tensor(before[1]):
        return bool(before[0] == after[0]) and torch.equal(before[1], after[1])
    return bool(before == after)
