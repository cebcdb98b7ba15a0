"""Guide models: frozen models besides the reference, whose log-probs of tokens methods read.

Like the reference's they are computed before training and cached between runs; then the model is gone from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.contract.responses import ResponseBatch
from alignzoo.data.collate import TokenBatch
from alignzoo.distributed.sharding import is_shard, prepare, resharding
from alignzoo.errors import ModelError
from alignzoo.logprobs.logps import padded_logps
from alignzoo.model.load import check_vocabulary, load_policy, load_tokenizer
from alignzoo.model.source import ModelSource, find_model
from alignzoo.model.weights import fingerprint
from alignzoo.plan.settings import Settings
from alignzoo.reference.cached import CachedReference, cached_reference
from alignzoo.reference.compute import Filling, Source
from alignzoo.reference.identity import reference_identity
from alignzoo.reference.store import Store, store_folder
from alignzoo.report import Reporter
from alignzoo.session.shards import guide_in_shards

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Guides:
    """Looks up the log-probs of a batch's tokens under the guide models.

    Attributes:
        tables: by need, ``guide`` and ``contrast``.
        identities: hashes of the models' weights by need.
    """

    tables: Mapping[str, CachedReference]
    identities: Mapping[str, str]

    def __call__(self, batch: TokenBatch) -> TokenBatch:
        """The batch, on the host, with those log-probs."""
        found: dict[str, Any] = {f"{need}_tokens": table(batch).token_logps for need, table in self.tables.items()}
        return replace(batch, **found)


def load_guides(
    settings: Settings,
    names: Mapping[str, str],
    tokenizer: Any,
    highest: int,
    sources: Callable[[], Sequence[Source]],
    accelerator: Accelerator,
    report: Reporter,
) -> Guides:
    """The guide models' log-probs of the rows of ``sources``, one model after the other.

    Args:
        names: models by the flag that names them.
        tokenizer, highest: of the data: its token ids are read by all models.

    Raises:
        ModelError: there is no such model, or its tokenizer is not the policy's.
    """
    tables, identities = {}, {}
    alone = Settings(
        precision=settings.precision, trust_remote_code=settings.trust_remote_code, offload=settings.offload
    )
    for flag, name in names.items():
        report.note(f"loading {name}")
        source = _source(flag, name, alone, tokenizer)
        model = guide_in_shards(name, source, alone, accelerator, report) or _whole(source, alone, accelerator)
        check_vocabulary(model, highest, name)
        model.requires_grad_(False).eval()
        identities[flag] = fingerprint(model)
        store = Store(
            store_folder(reference_identity(model, alone, identities[flag], way="padded")), tokens=True, report=report
        )
        prepared = prepare(accelerator, model, frozen=True, offload=settings.offload == "weights")
        filling = Filling(
            store,
            partial(_frozen_logps, prepared),
            accelerator,
            report,
            tokenizer.pad_token_id,
            is_shard(prepared),
            settings.tokens_per_micro_batch,
            what=flag,
        )
        tables[flag] = cached_reference(filling, sources, torch.device("cpu"))
        del model, prepared, filling
    return Guides(tables, identities)


@torch.no_grad()
def _frozen_logps(model: Any, batch: TokenBatch) -> ResponseBatch:
    return resharding(partial(padded_logps, tokens=True))(model, batch)


def _source(flag: str, name: str, settings: Settings, tokenizer: Any) -> ModelSource:
    source = find_model(name, flag)
    own = load_tokenizer(source, settings)
    if own.get_vocab() != tokenizer.get_vocab():
        raise ModelError(
            f"--{flag} {name} has another tokenizer than the policy, so it would read other tokens than the policy's",
            hint="give a model of the policy's family, for instance one trained from it",
        )
    return source


def _whole(source: ModelSource, settings: Settings, accelerator: Accelerator) -> Any:
    """The model, an adapter merged into its base."""
    model: Any = load_policy(source, settings)
    if hasattr(model, "peft_config"):
        model = model.merge_and_unload()
    return model.to(accelerator.device)
