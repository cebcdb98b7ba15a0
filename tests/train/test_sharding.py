"""Sharded models: what is gathered of them, where it lies, and that nothing else stays behind."""

from __future__ import annotations

from typing import Any

import torch

from alignzoo.contract.card import Options
from alignzoo.distributed.sharding import full_state, gathered, shard
from alignzoo.distributed.shards import is_sharded, local, whole_state
from alignzoo.plan.settings import Settings
from alignzoo.step.states import plain_state
from alignzoo.testing.ranks import on_two_ranks
from alignzoo.testing.stages import AtTheWeights, mean_goal
from alignzoo.testing.steps import Bench
from alignzoo.testing.tiny import tiny_model
from alignzoo.train.optim import load_optimizer, make_optimizer


def gather_states() -> dict[str, Any]:
    """State dicts of a model with tied weights, with and without ``keep``, and what running it whole gives."""
    model = tiny_model("gpt2", dtype=torch.float32)
    ids = torch.tensor([[5, 9, 31, 7]])
    with torch.no_grad():
        whole = model(input_ids=ids).logits
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model = shard(model)
    state = full_state(model, keep=True)
    with gathered(model), torch.no_grad():
        alone = model(input_ids=ids).logits if torch.distributed.get_rank() == 0 else whole
        torch.distributed.barrier()
    return {
        "same": all(torch.equal(state[name], tensor) for name, tensor in before.items()),
        "tied": state["lm_head.weight"] is state["transformer.wte.weight"],
        "empty": full_state(model, keep=False),
        "gathered": torch.equal(alone, whole),
        "sharded": all(map(is_sharded, model.parameters())),
    }


def test_what_is_gathered_of_a_sharded_model() -> None:
    for found in on_two_ranks(gather_states, modules=[__name__]):
        assert found == {"same": True, "tied": True, "empty": {}, "gathered": True, "sharded": True}


class Remembering(AtTheWeights):
    """A controller with a state of the gradient's size."""

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [self.gradient], "count": 3}


def save_states() -> dict[str, Any]:
    """The sizes of a controller's and an optimizer's saved state on this rank, whether AdamW continues from its own,
    and which of its weights decay."""
    bench, controller = Bench(sharded=True), Remembering(Options())
    bench.setup(controller)
    weights = list(bench.policy.parameters())
    settings = Settings(lr=1e-2, weight_decay=0.1)
    optimizer = make_optimizer(weights, settings)
    controller.step(bench.context(mean_goal(), 0))
    controller.gradient = weights[0].grad
    optimizer.step()
    kept = whole_state(optimizer.state_dict(), keep=True)
    again = make_optimizer(weights, settings)
    load_optimizer(again, kept)
    moments = zip(optimizer.state.values(), again.state.values(), strict=True)
    left = whole_state(optimizer.state_dict(), keep=False)["state"].values()
    return {
        "kept": plain_state(controller, keep=True)["kept"][0].numel() == weights[0].numel(),
        "dropped": plain_state(controller, keep=False)["kept"][0].numel(),
        "moments": all(torch.equal(local(a["exp_avg"]), local(b["exp_avg"])) for a, b in moments),
        "decay": [(g["weight_decay"], {w.dim() for w in g["params"]}) for g in again.param_groups],
        "none left": sum(state["exp_avg"].numel() for state in left),
    }


def test_only_the_rank_that_writes_holds_a_whole_state() -> None:
    decay = [(0.1, {2}), (0.0, {1})]
    for found in on_two_ranks(save_states, modules=[__name__]):
        assert found == {"kept": True, "dropped": 0, "moments": True, "decay": decay, "none left": 0}
