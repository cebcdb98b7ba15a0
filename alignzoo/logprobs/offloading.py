"""Activations in the host's memory between the forward and the backward pass.

What autograd saves is copied to pinned memory on a stream of its own during the forward pass, and fetched on the
same stream a little before the backward pass needs it. Not :func:`torch.autograd.graph.save_on_cpu`: that moves weights
as well, moves a tensor once for each operation that saves it (three times for the input of the three projections of an
attention layer), and copies on the stream that computes, which then waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from alignzoo.contract.responses import ResponseBatch
from alignzoo.logprobs.logps import Forward

SMALLEST = 1 << 20
"""Bytes below which a tensor stays where it is."""
IN_FLIGHT = 1 << 29
"""Bytes on their way to the host; the forward pass waits before there are more."""
AHEAD = 1 << 28
"""Bytes fetched before the backward pass asks for them."""


def offloading(forward: Forward) -> Forward:
    """``forward``, with the activations of a pass that is differentiated in the host's memory."""

    def run(model: torch.nn.Module, *given: Any) -> ResponseBatch:
        if not torch.is_grad_enabled():
            return forward(model, *given)
        with Offloading(model):
            return forward(model, *given)

    return run


class Offloading(torch.autograd.graph.saved_tensors_hooks):
    """Inside, large tensors that autograd saves go to the host, until their backward pass.

    Weights stay, and so do their copies in other dtypes that autocast makes: they are known by their shape.

    Args:
        model: whose weights stay.
        smallest: bytes of the smallest tensor to move.
    """

    def __init__(self, model: torch.nn.Module, *, smallest: int = SMALLEST) -> None:
        self._smallest = smallest
        shapes = {tuple(weight.shape) for weight in model.parameters()}
        self._weights = shapes | {shape[::-1] for shape in shapes}
        self._moved: dict[tuple[Any, ...], _Moved] = {}  # while the forward pass runs
        self._order: list[ref[_Moved]] = []
        self._copies: dict[torch.device, _Copies] = {}
        super().__init__(self._pack, self._unpack)

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        self._moved.clear()
        for copies in self._copies.values():
            copies.settle(0)

    def _pack(self, tensor: torch.Tensor) -> _Moved | torch.Tensor:
        if tensor.numel() * tensor.element_size() < self._smallest or tuple(tensor.shape) in self._weights:
            return tensor.detach()  # not the tensor itself: an output that held itself would never be freed
        # A storage's place in memory is not used again while there is a weak reference to it.
        key = (StorageWeakRef(tensor.untyped_storage()), tensor._version, tensor.storage_offset(), tensor.dtype,
               tuple(tensor.shape), tensor.stride())  # fmt: skip
        found = self._moved.get(key)
        if found is None:
            copies = self._copies.setdefault(tensor.device, _Copies(tensor.device))
            found = self._moved[key] = _Moved(tensor, copies, len(self._order))
            self._order.append(ref(found))
        found.uses += 1
        return found

    def _unpack(self, packed: _Moved | torch.Tensor) -> torch.Tensor:
        if isinstance(packed, torch.Tensor):
            return packed
        tensor, ahead = packed.take(), 0
        for place in range(packed.place - 1, -1, -1):  # the backward pass goes backwards
            earlier = self._order[place]()
            if earlier is None or earlier.uses <= 0:
                continue
            ahead += earlier.host.numel() * earlier.host.element_size()
            if ahead > AHEAD:
                break
            earlier.fetch()
        return tensor


class _Moved:
    """A tensor in the host's memory."""

    def __init__(self, tensor: torch.Tensor, copies: _Copies, place: int) -> None:
        self.place = place
        self.uses = 0  # operations that have saved it and not asked for it yet
        self.host = copies.to_host(tensor)
        self._copies = copies
        self._fetched: tuple[torch.Tensor, Callable[[], None]] | None = None

    def fetch(self) -> None:
        """Begin to copy it back, if nothing has."""
        if self._fetched is None:
            self._fetched = self._copies.to_device(self.host)

    def take(self) -> torch.Tensor:
        """The tensor on its device, for one of its uses."""
        self.fetch()
        assert self._fetched is not None
        tensor, arrived = self._fetched
        arrived()
        self.uses -= 1
        if self.uses <= 0:
            self._fetched = None
        return tensor


class _Copies:
    """Copies between one device and the host; on CUDA on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = _stream_of(device) if device.type == "cuda" else None
        self._leaving: deque[tuple[torch.Tensor, Any]] = deque()  # kept until their copies are complete
        self._bytes = 0

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._stream is None:
            return torch.empty_like(tensor, requires_grad=False).copy_(tensor.detach())
        tensor = tensor.detach()
        host = torch.empty_like(tensor, device="cpu", pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            host.copy_(tensor, non_blocking=True)
        self._leaving.append((tensor, self._stream.record_event()))
        self._bytes += tensor.numel() * tensor.element_size()
        self.settle(IN_FLIGHT)
        return host

    def settle(self, most: int) -> None:
        """Let the computing stream wait until at most this many bytes are on their way to the host, and let go of the
        tensors that have arrived."""
        while self._bytes > most:
            tensor, copied = self._leaving.popleft()
            torch.cuda.current_stream(self._device).wait_event(copied)
            self._bytes -= tensor.numel() * tensor.element_size()

    def to_device(self, host: torch.Tensor) -> tuple[torch.Tensor, Callable[[], None]]:
        """The tensor on the device, and what to call before using it."""
        if self._stream is None:
            return host.clone(), lambda: None
        tensor = torch.empty_like(host, device=self._device)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # its memory may still be in use there
        with torch.cuda.stream(self._stream):
            tensor.copy_(host, non_blocking=True)
        tensor.record_stream(self._stream)  # a pass can end without having asked for it
        arrived = self._stream.record_event()
        return tensor, lambda: torch.cuda.current_stream(self._device).wait_event(arrived)


_STREAMS: dict[torch.device, Any] = {}


def _stream_of(device: torch.device) -> Any:
    """One stream for all passes: copies back wait for the copies out, on it."""
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)
    return _STREAMS[device]
