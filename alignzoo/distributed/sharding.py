"""FSDP2: every rank keeps some rows of each weight, of its gradient and of the optimizer's state.

One group per decoder layer, and one for everything else (embeddings, last norm, head, tied weights among them); under
bf16 also one for the layers' norms. What the ranks do with a micro-batch must be the same on all of them, for each
forward and backward gathers weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from alignzoo.distributed.launch import distributed_backend, reshards_after_forward
from alignzoo.distributed.narrow import norms_of, policy_of_layers
from alignzoo.distributed.shards import like, rows_of, whole_state
from alignzoo.errors import IncompatibleError

if TYPE_CHECKING:
    from accelerate import Accelerator

_Result = TypeVar("_Result")


def prepare(accelerator: Accelerator, model: Any, *, frozen: bool = False, offload: bool = False) -> Any:
    """The model as this launch runs it: under autocast, and replicated (DDP) or sharded over the ranks.

    Make optimizers after: sharding exchanges the parameters. ``frozen``: for a model that is never trained.
    ``offload`` as of :func:`shard`; a model that is sharded already stays as it is.
    """
    if distributed_backend() != "fsdp":
        return accelerator.prepare_model(model, evaluation_mode=frozen)
    if not is_shard(model):
        device = accelerator.device.type
        narrow, again = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None, reshards_after_forward()
        model = shard(model, device=device, reshard_after_forward=again, offload=offload, narrow=narrow)
    # This adds autocast, and no DDP.
    return accelerator.prepare_model(model, evaluation_mode=True, device_placement=False)


def shard(
    model: Any,
    *,
    device: str | None = None,
    reshard_after_forward: bool = True,
    offload: bool = False,
    narrow: torch.dtype | None = None,
) -> Any:
    """The model, sharded in place over all ranks; parameters become DTensors, so an optimizer has to be made after.

    Args:
        model: a transformers model, or an adapted one; the same weights on all ranks, or weights on the meta device,
            which :func:`fill` then gives their values.
        device: the kind of device that computes; by default the weights'.
        reshard_after_forward: free a layer's gathered weights between forward and backward.
        offload: keep the shards of weights, gradients and hence optimizer state in host memory.
        narrow: the dtype of the autocast under which the model will be called, in which linear maps are gathered; see
            :mod:`alignzoo.distributed.narrow`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    _check_checkpoints()
    device = device or next(model.parameters()).device.type
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    given: dict[str, Any] = {"mesh": mesh}
    if offload:
        given["offload_policy"] = CPUOffloadPolicy(pin_memory=device != "cpu")
    layers = decoder_layers(model)
    norms = [] if narrow is None else norms_of(model, layers)
    if norms:
        fully_shard(norms, reshard_after_forward=False, **given)
    policy: dict[str, Any] = {"mp_policy": policy_of_layers(narrow)} if narrow is not None and norms else {}
    for layer in layers:
        fully_shard(layer, reshard_after_forward=reshard_after_forward, **policy, **given)
    return fully_shard(model, **given)


def _check_checkpoints() -> None:
    """Refuse a torch that could not save what is trained.

    Raises:
        IncompatibleError: its distributed checkpoints cannot be safetensors.
    """
    import torch.distributed.checkpoint as dcp

    if not hasattr(dcp, "HuggingFaceStorageWriter"):
        raise IncompatibleError(
            f"torch {torch.__version__} cannot write the checkpoints of sharded weights (FSDP2)",
            hint="pip install -U torch, or use --parallel ddp",
        )


Owners = list[tuple[torch.nn.Module, str]]
"""The modules that hold one weight, and its name in each: more than one where weights are tied."""


def owners_of(model: torch.nn.Module) -> dict[str, Owners]:
    """The owners of each weight of a model, by the first of its names."""
    names: dict[int, str] = {}
    found: dict[str, Owners] = {}
    for prefix, module in model.named_modules():
        for leaf, weight in module.named_parameters(recurse=False, remove_duplicate=False):
            name = names.setdefault(id(weight), f"{prefix}.{leaf}" if prefix else leaf)
            found.setdefault(name, []).append((module, leaf))
    return found


def fill(owners: Owners, read: Callable[[slice], torch.Tensor], device: torch.device) -> None:
    """Give a sharded weight on the meta device its values.

    Args:
        read: gives the rows that are asked for, which are this rank's.
        device: where the shard is to be.
    """
    module, leaf = owners[0]
    weight = module.get_parameter(leaf)
    rows = read(rows_of(weight)).to(device, weight.dtype, copy=True)  # what is read may be the file itself, mapped
    filled = torch.nn.Parameter(like(rows.contiguous(), weight), requires_grad=weight.requires_grad)
    for module, leaf in owners:
        module.register_parameter(leaf, filled)


@contextmanager
def parts_callable(model: Any) -> Iterator[None]:
    """Inside, a part of a sharded model can be called without the rest, on all ranks alike: what no layer owns
    (embeddings, last norm, head) is gathered. Any other model is left as it is."""
    if not is_shard(model):
        yield
        return
    model._get_fsdp_state()._lazy_init()  # or the layer that runs first would take itself for the whole model
    try:
        model.unshard()
        yield
    finally:
        reshard(model)


def is_shard(model: Any) -> bool:
    """Whether :func:`shard` made the model."""
    return hasattr(model, "set_requires_gradient_sync")


def class_of(model: torch.nn.Module) -> type:
    """The class that a model had before it was sharded, which gives it one of FSDP's."""
    kinds = type(model).__mro__
    return kinds[2] if is_shard(model) else kinds[0]


def resharding(forward: Callable[..., _Result]) -> Callable[..., _Result]:
    """``forward``, after which a model that is sharded is so again.

    Without a backward the root's weights would stay gathered, and what is written to the shards would not be seen.
    """

    def run(model: Any, *given: Any, **words: Any) -> _Result:
        done = False
        try:
            result = forward(model, *given, **words)
            done = True
        finally:
            if is_shard(model) and not (done and torch.is_grad_enabled()):
                reshard(model)
        return result

    return run


def reshard(model: Any) -> None:
    """Let go of gathered weights, also of those that a failure in the middle of a pass left behind."""
    for module in model.modules():
        if is_shard(module):
            module.reshard()


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Inside, every rank has all weights of a sharded model, so that one of them can run it alone, as often as it
    wants; they are to be read only."""
    modules = [module for module in model.modules() if is_shard(module)]
    try:
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        yield
    finally:
        for module in modules:
            module.set_reshard_after_forward(module is not model and reshards_after_forward(), recurse=False)
            module.reshard()


def full_state(
    model: torch.nn.Module, *, keep: bool, only: Callable[[str], bool] = lambda name: True
) -> dict[str, torch.Tensor]:
    """The model's state dict with whole tensors, those whose names ``only`` accepts; all ranks take part, and those
    without ``keep`` get an empty one."""
    seen: dict[int, torch.Tensor] = {}  # weights that are tied stay one tensor
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not only(name):
            continue
        if id(tensor) not in seen:
            seen[id(tensor)] = whole_state(tensor.detach(), keep=keep)
        state[name] = seen[id(tensor)]
    return state if keep else {}


def decoder_layers(model: Any) -> list[torch.nn.Module]:
    """The decoder layers: what transformers says must not be split, else the longest list of modules."""
    names = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    layers = [module for module in model.modules() if type(module).__name__ in names][::-1]  # the inner ones first
    if layers:
        return layers
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return list(max(lists, key=len, default=[]))
