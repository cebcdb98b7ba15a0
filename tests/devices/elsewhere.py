"""A second device without one: tensors on it compute on the CPU and refuse to be mixed with those that are there.

torch lets a backend be written in Python. This one keeps a CPU tensor inside each of its own, runs every operation on
these, and raises where a GPU would: operands on different devices, a generator of the host's, ``numpy()``. As on a GPU,
backward passes run in another thread. A process that has begun cannot go back, so tests hand their work to one of their
own, see :func:`process`.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from forked import IMPORTED
from torch.utils import _pytree as pytree
from torch.utils._device import _device_constructors

NAME = "elsewhere"
aten = torch.ops.aten
CROSSING = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default, aten._foreach_copy.default}
"""Operations that take tensors of different devices."""
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor,
            aten._index_put_impl_.default}  # fmt: skip
"""Operations whose indices may be on the host."""
NUMBERS = {aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.where.self, aten.fill_.Tensor, aten.fill.Tensor}
"""Operations, beside element-wise ones, one of whose operands may be a number on the host."""
SIZED = ("arange", "arange.start", "arange.start_step", "linspace", "eye", "eye.m", "randperm", "tril_indices")
"""Constructors that torch would have fill an empty tensor, which would not notice its new size."""
NARROW_PRODUCTS = ("linear", "matmul", "mm", "bmm", "addmm", "scaled_dot_product_attention")
"""Operations that autocast runs in its dtype; of a GPU's list those that a causal LM has."""


class Elsewhere(torch.Tensor):
    """A tensor on the other device.

    Attributes:
        inner: where its numbers are, a CPU tensor.
    """

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=f"{NAME}:0",
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"{NAME}({self.inner!r})"

    def __format__(self, spec: str) -> str:
        return format(self.inner, spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Elsewhere:
        made = memo[id(self)] = Elsewhere(self.inner.clone())
        vars(made).update({name: value for name, value in vars(self).items() if name != "inner"})
        return made.requires_grad_(self.requires_grad)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.__reduce_ex__(protocol)

    def tolist(self) -> Any:
        return self.inner.tolist()

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __getitem__(self, key: Any) -> torch.Tensor:
        return super().__getitem__(_without_lists(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_without_lists(key), value)

    def new_tensor(self, data: Any, **named: Any) -> torch.Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **named})


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """An operation on the tensors inside, as one on tensors of the device.

    Raises:
        RuntimeError: a GPU would raise, too.
    """
    _refuse_mixed(func, args, kwargs)
    outer: dict[int, Elsewhere] = {}

    def inside(value: Any) -> Any:
        if isinstance(value, Elsewhere):
            outer[id(value.inner)] = value
            return value.inner
        return torch.device("cpu") if _is_here(value) else value

    given, named = pytree.tree_map(inside, (tuple(args), kwargs))
    found = func(*given, **named)
    if func is aten._to_copy.default and kwargs.get("device") is not None and not _is_here(kwargs["device"]):
        return found  # to the host
    if func is aten.copy_.default and not isinstance(args[0], Elsewhere):
        return args[0]
    return pytree.tree_map_only(torch.Tensor, lambda x: outer[id(x)] if id(x) in outer else Elsewhere(x), found)


def _without_lists(key: Any) -> Any:
    """An index whose lists are tensors of the host's, which torch cannot make elsewhere."""
    if isinstance(key, tuple):
        return tuple(map(_without_lists, key))
    return torch.tensor(key) if isinstance(key, list) else key


def computed_of(func: Any, *args: Any, **kwargs: Any) -> Any:
    """:func:`computed` with the operation's own arguments."""
    return computed(func, args, kwargs)


def _is_here(value: Any) -> bool:
    return isinstance(value, torch.device) and value.type == NAME


def _refuse_mixed(func: Any, args: Any, kwargs: Any) -> None:
    if func in CROSSING:
        return
    operands = args[0] if func in INDEXING else (args, kwargs)
    if func in INDEXING:
        operands = (args[0], *args[2:], kwargs)
    tensors = [value for value in pytree.tree_leaves(operands) if isinstance(value, torch.Tensor)]
    numbers = torch.Tag.pointwise in func.tags or func in NUMBERS or func in INDEXING
    hosts = [value for value in tensors if not isinstance(value, Elsewhere) and not (numbers and value.dim() == 0)]
    if hosts:
        shape = tuple(hosts[0].shape)
        raise RuntimeError(f"{func}: a tensor of the host's, of shape {shape}, among tensors on {NAME}:0")
    generator = kwargs.get("generator")
    if generator is not None:
        raise RuntimeError(f"{func}: a generator of the host's for a tensor on {NAME}:0")


class _Module:
    """What torch asks of the module of a device."""

    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = manual_seed = staticmethod(lambda seed: None)
    device = staticmethod(lambda index: nullcontext())
    synchronize = staticmethod(lambda *_: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])
    get_rng_state = staticmethod(lambda *_: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, *_: torch.set_rng_state(state))


def begin() -> None:
    """Make the device in this process, and let accelerate use it."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    from alignzoo.step import states

    os.environ["ALIGNZOO_CACHE"] = tempfile.mkdtemp()  # what the host has computed is not to be found here
    _setup_privateuseone_for_python_backend(NAME, _Module())
    _LIBRARIES.append(torch.library.Library("_", "IMPL", "PrivateUse1"))
    _LIBRARIES[-1].fallback(lambda func, *args, **kwargs: computed(func, args, kwargs))
    _LIBRARIES.append(torch.library.Library("aten", "IMPL", "PrivateUse1"))
    for name in SIZED:
        packet, _, overload = name.partition(".")
        func = getattr(getattr(aten, packet), overload or "default")
        _LIBRARIES[-1].impl(name, partial(computed_of, func))
    _autocast()
    torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay one
    _device_constructors()  # a list that is kept, of what a context such as torch.device("meta") acts on
    torch.tensor, torch.as_tensor = _made_there(torch.tensor), _made_there(torch.as_tensor)
    plain = states._not_plain
    states._not_plain = lambda value: None if isinstance(value, Elsewhere) else plain(value)
    torch.set_num_threads(1)
    Accelerator(cpu=True)
    AcceleratorState._check_initialized = lambda *_, **__: None
    PartialState._shared_state["device"] = torch.device(f"{NAME}:0")
    AcceleratorState._shared_state["device"] = torch.device(f"{NAME}:0")


_LIBRARIES: list[Any] = []


def _made_there(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A constructor that makes its tensor here and moves it: torch cannot make one from numbers elsewhere."""

    def making(data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> torch.Tensor:
        made = make(data, dtype=dtype)
        return (made if device is None else made.to(device)).requires_grad_(requires_grad)

    return making


def _autocast() -> None:
    others, library = (torch.library.Library(name, "IMPL", "AutocastPrivateUse1") for name in ("_", "aten"))
    others.fallback(torch.library.fallthrough_kernel)
    _LIBRARIES.extend([others, library])
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def narrow(func: Any) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            dtype = torch.get_autocast_dtype(NAME)

            def cast(value: Any) -> Any:
                wide = isinstance(value, Elsewhere) and value.dtype == torch.float32
                return value.to(dtype) if wide else value

            with torch._C._ExcludeDispatchKeyGuard(keys):
                args, kwargs = pytree.tree_map(cast, (args, kwargs))
                return func(*args, **kwargs)

        return run

    for name in NARROW_PRODUCTS:
        library.impl(name, narrow(getattr(torch.ops.aten, name).default))


def process() -> ProcessPoolExecutor:
    """A process of its own in which the device exists; what is handed to it must be importable by name."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return ProcessPoolExecutor(1, mp_context=context, initializer=begin)
