"""With dropout off, training mode draws nothing; with it kept, the passes of a step draw the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from steps import objective

from alignzoo.logprobs.logps import padded_logps
from alignzoo.model.load import load_policy
from alignzoo.model.modes import disable_dropout
from alignzoo.model.source import find_model
from alignzoo.plan.settings import Settings
from alignzoo.testing.steps import context
from alignzoo.testing.tiny import NEOX, SMALL, VOCAB, batch_of, cut, pair_rows, with_adapter

ROWS = pair_rows(4)
EXPERTS = {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2}
DRAWING: dict[str, Callable[[], Any]] = {
    "layers that are skipped": lambda: transformers.OPTConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        word_embed_proj_dim=32,
        layerdrop=0.5,
        dropout=0.3,
    ),
    "jitter before the router": lambda: transformers.MixtralConfig(**EXPERTS, router_jitter_noise=0.5),
    "experts that are sampled": lambda: transformers.PhimoeConfig(
        **EXPERTS, router_jitter_noise=0.3, input_jitter_noise=0.3
    ),
    "dropout that layers read from the config": lambda: transformers.FalconConfig(
        **{**NEOX, "num_kv_heads": 2}, hidden_dropout=0.5, attention_dropout=0.5
    ),
}


def drawing(kind: str) -> Any:
    """A random model that draws in training mode, in eval mode."""
    torch.manual_seed(0)
    config = DRAWING[kind]()
    config.initializer_range = 0.2
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def logps(model: Any) -> torch.Tensor:
    return padded_logps(model, batch_of(ROWS), tokens=True).token_logps


@pytest.mark.parametrize("kind", DRAWING)
def test_without_dropout_training_mode_is_eval_mode(kind: str) -> None:
    model = drawing(kind)
    expected = logps(model)
    model.train()
    assert not torch.equal(logps(model), expected)  # or it shows nothing
    disable_dropout(model)
    assert torch.equal(logps(model), expected)
    for _ in range(2):
        model.eval()
        model.train()
        assert model.training
        assert torch.equal(logps(model), expected)
    assert torch.equal(logps(copy.deepcopy(model)), expected)


def test_so_it_is_under_an_adapter() -> None:
    model = drawing("layers that are skipped")
    expected = logps(model)
    adapted = with_adapter(model)
    disable_dropout(adapted)
    adapted.train()
    assert all(torch.equal(logps(adapted), expected) for _ in range(8))


class Foreign(transformers.LlamaForCausalLM):
    """Code that is not transformers': its eval mode computes without gradients, as DeepSeek's experts do."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.model.training):
            return super().forward(*args, **kwargs)


def test_a_model_of_foreign_code_keeps_its_mode_and_so_its_gradients() -> None:
    torch.manual_seed(0)
    model = Foreign(transformers.LlamaConfig(**SMALL, attention_dropout=0.5))
    disable_dropout(model)
    model.train()
    expected = logps(model)
    assert torch.equal(logps(model), expected)
    expected.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("kind", DRAWING)
def test_so_it_is_where_activations_are_computed_again(kind: str, tmp_path: Path) -> None:
    drawing(kind).save_pretrained(tmp_path)
    plain, checkpointed = (
        load_policy(find_model(str(tmp_path)), Settings(activation_checkpointing=on)).train() for on in (False, True)
    )
    computed: list[str] = []
    for module in checkpointed.modules():
        if isinstance(module, transformers.modeling_layers.GradientCheckpointingLayer):
            first = next(module.children())
            first.register_forward_hook(lambda *_: computed.append("layer"))
    gradients = []
    for model in (plain, checkpointed):
        values = logps(model)
        values.sum().backward()
        gradients.append(model.get_input_embeddings().weight.grad)
    assert len(computed) == 4  # two layers, forward and again
    assert torch.equal(logps(checkpointed), logps(plain.eval()))
    assert all(module.training for module in checkpointed.modules() if getattr(module, "gradient_checkpointing", False))
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("kind", DRAWING)
def test_what_is_kept_is_drawn_alike_in_both_passes_of_a_step(kind: str) -> None:
    model = drawing(kind)
    frozen = copy.deepcopy(model)
    model.train()
    values = [
        step.evaluate().pairs.chosen_logps
        for step in (context(model, cut(ROWS, 2), objective(), reference=frozen, step=i) for i in (0, 0, 1, 2))
    ]
    assert torch.equal(values[0], values[1])
    assert not (torch.equal(values[0], values[2]) and torch.equal(values[0], values[3]))
