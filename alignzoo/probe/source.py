"""Where a run's safety probe comes from: a given folder, an earlier run, or training."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.data.parts import Parts
from alignzoo.distributed.narrow import gathers_rounded
from alignzoo.distributed.ranks import on_all_ranks
from alignzoo.distributed.sharding import is_shard
from alignzoo.probe.fit import cached_probe
from alignzoo.probe.probe import Probe
from alignzoo.report import Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator


def probe_source(
    policy: Any, parts: Parts, weights: str, accelerator: Accelerator, folder: Path | None, report: Reporter
) -> Callable[[str | None], Probe]:
    """What a controller or a reward calls for the probe: read from the given folder, or reused or trained on the rows
    set aside for it, once, on the first rank; a trained one is also saved in ``folder``."""

    def first(work: Callable[[], Probe | None]) -> Probe | None:
        return on_all_ranks(accelerator, lambda: work() if accelerator.is_main_process else None)[0]

    def reused_or_trained() -> Probe | None:
        if is_shard(policy):  # its ranks run it together
            return made(first=first)
        return first(made)

    def made(**ranks: Any) -> Probe | None:
        read = f"{weights} in bf16" if gathers_rounded(policy) else weights
        return cached_probe(policy, parts.probe_train, parts.probe_validation, report=report, weights=read, **ranks)

    @cache
    def probe(given: str | None) -> Probe:
        if given is not None:
            return Probe.load(Path(given), hidden=policy.config.get_text_config().hidden_size)
        trained = reused_or_trained()
        assert trained is not None
        if folder is not None:
            trained.save(folder / "probe")
        return trained

    return probe
