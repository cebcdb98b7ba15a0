"""A cap on what is sent to an endpoint: requests, and cost by price per million tokens."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from alignzoo.errors import AlignzooError

_MILLION = 1_000_000
_GO_ON = "what was judged is kept; start the same command again to spend as much once more, or raise the cap"


class CapReached(AlignzooError):
    """The next request could exceed the cap."""


@dataclass
class Budget:
    """What may be spent, shared by threads. Before a request is sent, the most that it can cost is set aside; its true
    cost replaces that afterwards, so that the cap holds whatever comes back.

    Attributes:
        max_requests: requests, repeated ones included; None: any number.
        max_cost: in the unit of the prices; None: any.
        price_in, price_out: per million tokens.
        requests, cost: spent so far; ``cost`` includes what is set aside.
    """

    max_requests: int | None = None
    max_cost: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    requests: int = 0
    cost: float = 0.0
    _open: int = 0
    _reached: str = ""
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def reserve(self, tokens_in: int, tokens_out: int) -> float:
        """Set aside the cost of a request with at most these tokens, waiting for open requests if they may leave room.

        Raises:
            CapReached: there is no room.
        """
        most = self.price(tokens_in, tokens_out)
        with self._changed:
            while not self._reached and not self._has_room(most):
                if self._no_more():
                    self._reached = f"the cap of {self.max_requests} requests is reached (max_requests)"
                elif not self._open:
                    self._reached = (
                        f"the cap on cost is reached: {self.cost:.4g} of {self.max_cost:g} is spent, and the next "
                        f"request could cost {most:.2g} (max_cost)"
                    )
                else:
                    self._changed.wait()
            if self._reached:
                self._changed.notify_all()
                raise CapReached(self._reached, hint=_GO_ON)
            self.requests += 1
            self._open += 1
            self.cost += most
        return most

    def settle(self, reserved: float, cost: float) -> None:
        """Replace what was set aside for a request by its cost."""
        with self._changed:
            self._open -= 1
            self.cost += cost - reserved
            self._changed.notify_all()

    def price(self, tokens_in: int, tokens_out: int) -> float:
        """The cost of some tokens."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / _MILLION

    def _no_more(self) -> bool:
        return self.max_requests is not None and self.requests >= self.max_requests

    def _has_room(self, most: float) -> bool:
        if self._no_more():
            return False
        return self.max_cost is None or self.cost + most <= self.max_cost
