"""The models of a conversation, loaded; a LoRA run and its own base share one set of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignzoo.generate.decoding import Decoding
from alignzoo.generate.stream import Stream, stream
from alignzoo.lazy import torch
from alignzoo.model.load import load_tokenizer
from alignzoo.model.positions import stated_positions
from alignzoo.model.source import ModelSource, find_model
from alignzoo.report import Reporter
from alignzoo.session.session import Session
from alignzoo.session.subject import Subject, inference_policy, model_session

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Speaker:
    """A model that answers.

    Attributes:
        label: its short name, different from the other speaker's.
        name: the model as it was named.
        positions: tokens that it can read and write, if its config says so.
        adapter_off: it is the base of ``model``, which has an adapter.
        device: such as ``fp32 on cpu``.
    """

    label: str
    name: str
    model: Any
    tokenizer: Any
    positions: int | None
    device: str
    adapter_off: bool = False

    def pieces(self, ids: Sequence[int], decoding: Decoding) -> Pieces:
        """The pieces of a response."""
        return Pieces(self, stream(self.model, self.tokenizer, ids, decoding))

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """The model as this speaker's, without gradients: an open stream does not hold either for another one's."""
        adapter: AbstractContextManager[Any] = self.model.disable_adapter() if self.adapter_off else nullcontext()
        with torch.no_grad(), adapter:
            yield


class Pieces(Iterator[str]):
    """A speaker's response as it comes. Between pieces the model is as it was: two speakers may take turns.

    Attributes:
        ended: as of a :class:`~alignzoo.generate.stream.Stream`.
    """

    def __init__(self, speaker: Speaker, pieces: Stream) -> None:
        self._speaker = speaker
        self._stream = pieces

    def __next__(self) -> str:
        with self._speaker.speaking():
            return next(self._stream)

    @property
    def ended(self) -> bool | None:
        return self._stream.ended


def load_speakers(
    subject: Subject,
    other: Subject | None,
    accelerator: Accelerator,
    report: Reporter,
    values: Mapping[str, Any],
) -> list[Speaker]:
    """The subject; with ``other``, that model before it.

    Args:
        values: settings by flag, such as ``{"precision": "bf16"}``.

    Raises:
        AlignzooError: a model does not load, or the settings do not suit it.
    """
    session = model_session(subject.model, accelerator, report, values)
    model, positions = inference_policy(session), stated_positions(session.config)
    label = _labels(subject, other)[-1]
    after = Speaker(label, subject.name, model, session.tokenizer, positions, place_of(session))
    if other is None:
        return [after]
    before = _labels(subject, other)[0]
    if is_base_of(find_model(other.model), session.source):
        tokenizer = load_tokenizer(find_model(other.model), session.settings)
        shared = Speaker(before, other.name, model, tokenizer, after.positions, after.device, adapter_off=True)
        return [shared, after]
    second = model_session(other.model, accelerator, report, values)
    positions = stated_positions(second.config)
    return [
        Speaker(before, other.name, inference_policy(second), second.tokenizer, positions, place_of(second)),
        after,
    ]


def place_of(session: Session) -> str:
    """Precision and device, such as ``fp32 on cpu``."""
    settings = session.settings
    weights = settings.precision if settings.quantize == "none" else f"{settings.quantize}, {settings.precision}"
    return f"{weights} on {session.accelerator.device.type}"


def is_base_of(base: ModelSource, source: ModelSource) -> bool:
    """Whether ``source`` is an adapter on this very model."""
    return source.adapter is not None and base.adapter is None and base.base == source.base


def _labels(subject: Subject, other: Subject | None) -> list[str]:
    if other is None:
        return [subject.label]
    if other.label != subject.label:
        return [other.label, subject.label]
    if other.name != subject.name:
        return [other.name, subject.name]
    return [f"{other.label} (1)", f"{subject.label} (2)"]
