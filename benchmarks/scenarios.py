"""What is measured against TRL: one entry a scenario. Imports nothing that is not in the standard library."""

from __future__ import annotations

from dataclasses import dataclass

LARGE_VOCABULARY = {"vocab_size": 150_000, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 4}
"""A llama whose head is most of it, with random weights."""


@dataclass(frozen=True)
class Scenario:
    """The same work for both sides.

    Attributes:
        shape: of the pairs: ``dialogue`` as the data has them, ``long`` with a prompt of 1500 tokens and responses of
            at most 100, ``bare`` with a prompt of 1 to 4 tokens.
        model: ``given``, or ``large-vocabulary`` for :data:`LARGE_VOCABULARY`.
        pairs: of a step.
        cached: reference log-probs before the first step, or else by a second model in every step.
        lora: rank of the adapter on all linear layers, 0 for full fine-tuning.
        steps: timed ones where the command line does not say.
        default: whether it is run where none is named.
        faster, memory: what is aimed at: TRL's seconds over ours, at least; our peak over TRL's, at most.
    """

    about: str
    shape: str = "dialogue"
    model: str = "given"
    pairs: int = 4
    max_length: int = 1024
    cached: bool = False
    precision: str = "fp32"
    lora: int = 0
    steps: int = 3
    default: bool = True
    faster: float | None = None
    memory: float | None = None


SCENARIOS = {
    "hh-fly": Scenario("dialogues; reference on the fly", faster=2.6, memory=0.45),
    "hh-cached": Scenario("dialogues; reference cached / precomputed", cached=True, faster=2.6, memory=0.45),
    "long-prompt": Scenario(
        "1500-token prompts, 100-token responses; 2 pairs a step", "long", pairs=2, max_length=2048, steps=2, faster=3.0
    ),
    "no-prompt": Scenario("prompts of 1 to 4 tokens: nothing to share", "bare", faster=1.1),
    "lora": Scenario("dialogues; LoRA of rank 16 on all linear layers", lora=16, faster=2.5),
    "bf16": Scenario("dialogues; bf16 on both sides", precision="bf16", faster=2.0),
    "bf16-cached": Scenario("the same, reference cached", precision="bf16", cached=True, default=False, faster=2.0),
    "large-vocabulary": Scenario(
        "dialogues; a vocabulary of 150,000, 4 layers, random weights", model="large-vocabulary"
    ),
}
