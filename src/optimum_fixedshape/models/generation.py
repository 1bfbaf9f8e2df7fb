"""What models that write have in common: graphs in several parts, and transformers' own `generate()` on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import onnxruntime as ort
from transformers import GenerationConfig, GenerationMixin

from optimum_fixedshape.config import made_folder
from optimum_fixedshape.contract import PAST, SEQUENCE, ShapeContract
from optimum_fixedshape.decoding import POSITIONS, Decoder, Tokens, check_context
from optimum_fixedshape.errors import MissingInputError, ShapeMismatchError
from optimum_fixedshape.fitting import Array, Fill
from optimum_fixedshape.ladder import ShapeLadder, ladder_of_texts
from optimum_fixedshape.parts import Parts, Rungs, find_parts
from optimum_fixedshape.runtime import RungStats, Runtime
from optimum_fixedshape.scratch import ScratchFolder
from optimum_fixedshape.sessions import SessionPool
from optimum_fixedshape.tasks import Overflow

from .base import FixedShapeMixin, as_array
from .session import fill_of


@dataclass(frozen=True)
class Engine:
    """What a model that writes runs on.

    Attributes:
        ladder: What the model as a whole takes from its processor.
        decoder: The graphs with a cache, or None.
        encoder: The encoder, or None.
        whole: A decoder without a cache, which reads the whole text at each step, or None.
        scratch: A folder that has to stay as long as the graphs run.
    """

    ladder: ShapeLadder
    decoder: Decoder | None
    encoder: Runtime | None = None
    whole: Runtime | None = None
    scratch: ScratchFolder | None = None

    @property
    def runtimes(self) -> tuple[Runtime, ...]:
        """All there are, the one that stock optimum would load first before the others."""
        behind = (self.decoder.following, self.decoder.first) if self.decoder else ()
        return tuple(filter(None, (self.encoder, self.whole, *behind)))

    def on(self, provider: str, options: Mapping[str, Any]) -> Engine:
        """Returns the same graphs on another execution provider."""
        first = self.decoder.first if self.decoder else None
        decoder = self.decoder and Decoder(
            self.decoder.following.on(provider, options), first and first.on(provider, options)
        )
        encoder, whole = (each and each.on(provider, options) for each in (self.encoder, self.whole))
        return replace(self, decoder=decoder, encoder=encoder, whole=whole)


class GenerationBase(FixedShapeMixin, GenerationMixin):  # type: ignore[misc]
    """Put before optimum's class, as `FixedShapeMixin`; `generate()` and its caches are those of transformers.

    Attributes:
        engine: The graphs.
        generation_config: As in transformers.
    """

    engine: Engine
    generation_config: GenerationConfig
    _is_stateful: ClassVar[bool] = False
    _supports_cache_class: ClassVar[bool] = True

    # optimum's classes have older ones of their own.
    prepare_inputs_for_generation = GenerationMixin.prepare_inputs_for_generation
    _prepare_cache_for_generation = GenerationMixin._prepare_cache_for_generation

    def __init__(
        self,
        *,
        config: Any,
        session: Engine | ort.InferenceSession,
        use_io_binding: bool | None = None,
        generation_config: GenerationConfig | None = None,
        model_save_dir: str | Path | ScratchFolder | None = None,
    ) -> None:
        super().__init__(config=config, session=session, use_io_binding=use_io_binding, model_save_dir=model_save_dir)
        self.generation_config = generation_config or _generation_config(self.home, config)
        self.fixed_shape_config = replace(
            self.fixed_shape_config, graphs=tuple(path.name for path in self.graph_files())
        )

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        *args: Any,
        generation_config: GenerationConfig | None = None,
        use_merged: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Returns the model of a folder, a file or a Hub repo; see `LoadingMixin.from_pretrained`.

        Args:
            model_id: The folder, file or Hub repo id.
            *args: As there.
            generation_config: How `generate` writes; by default what is saved with the model.
            use_merged: Accepted as optimum's: both decoders in one file give the same answers as a file for each.
            **kwargs: As there; `shapes` takes ``context_length`` and ``prefill_length``.
        """
        model = super().from_pretrained(model_id, *args, **kwargs)
        model.generation_config = generation_config or model.generation_config
        return model

    from_model = from_pretrained

    def initialize_ort_attributes(
        self, session: Engine | ort.InferenceSession, use_io_binding: bool | None = None
    ) -> None:
        """Puts an `Engine`, or the session of a decoder, behind the model."""
        engine = session if isinstance(session, Engine) else _engine_of(session, fill_of(self.config))
        self.engine = engine
        super().initialize_ort_attributes(engine.runtimes[0], use_io_binding)

    @property
    def ladder(self) -> ShapeLadder:
        """What the model takes from its processor."""
        return self.engine.ladder

    @property
    def stats(self) -> tuple[RungStats, ...]:
        """Runs, rows and padding waste of each rung of each graph so far."""
        return tuple(stats for runtime in self.engine.runtimes for stats in runtime.stats)

    @property
    def context_length(self) -> int | None:
        """The most tokens of a text, prompt and answer together; None where there is no limit."""
        decoder, whole = self.engine.decoder, self.engine.whole
        return decoder.limit if decoder else whole.ladder.limit(SEQUENCE) if whole else None

    @property
    def can_use_cache(self) -> bool:
        """Whether the graphs keep keys and values; else each step reads the whole text."""
        return self.engine.decoder is not None

    def can_generate(self) -> bool:
        """Whether the model writes text with ``generate()``."""
        return True

    def is_remote_code(self) -> bool:
        """Whether the class came from a repo: transformers 5 asks."""
        return False

    def get_experts_implementation(self) -> dict[str, str]:
        """Returns how mixtures of experts are computed, which is baked into a graph: transformers 5 asks."""
        return {}

    def graph_files(self) -> dict[Path, ShapeContract]:
        """Every graph's file with one of its contracts."""
        runtimes = self.engine.runtimes
        return {path: rung for each in runtimes for path, rung in zip(each.graphs, each.ladder.rungs, strict=True)}

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes all graphs with their weights, and the config of the model and of generation; see `SavingMixin`."""
        self.generation_config.save_pretrained(made_folder(save_directory))
        super().save_pretrained(save_directory, push_to_hub, **kwargs)

    def generate(self, *args: Any, overflow: Overflow | None = None, **kwargs: Any) -> Any:
        """Returns what transformers' `generate` returns, and takes what it takes.

        Args:
            *args: As in transformers.
            overflow: What happens where prompt and answer are longer than the graphs hold: ``"error"``, before anything
                runs, or ``"window"``, which forgets the first tokens. Positions go on counting, so that models with
                learned positions still end at the last of those.
            **kwargs: As in transformers.

        Raises:
            InputTooLongError: The prompt and ``max_new_tokens`` do not fit.
        """
        if not self.can_use_cache:
            kwargs.setdefault("use_cache", False)
        if overflow == "window":
            self._check_window()
        if overflow is not None:
            kwargs["overflow"] = overflow
        return super().generate(*args, **kwargs)

    def _prepare_generation_config(self, *args: Any, **kwargs: Any) -> Any:
        generation_config, model_kwargs = super()._prepare_generation_config(*args, **kwargs)
        generation_config._slides = model_kwargs.get("overflow") == "window"
        prompt = model_kwargs.get("decoder_input_ids")
        generation_config._prompt_length = 1 if prompt is None else prompt.shape[1]
        return generation_config, model_kwargs

    def _prepare_special_tokens(self, generation_config: Any, *args: Any, **kwargs: Any) -> None:
        # Before an encoder runs, and no earlier: transformers 4.57 makes a pipeline with lengths nobody asked for.
        if self.config.is_encoder_decoder and generation_config.max_new_tokens:
            self._check_context(generation_config, generation_config._prompt_length + generation_config.max_new_tokens)
        super()._prepare_special_tokens(generation_config, *args, **kwargs)

    def _validate_generated_length(self, generation_config: Any, input_ids_length: int, has_default: bool) -> None:
        limit = self.context_length
        if has_default and generation_config.max_new_tokens is None and limit and input_ids_length < limit:
            generation_config.max_length = min(generation_config.max_length, limit)
        super()._validate_generated_length(generation_config, input_ids_length, has_default)
        self._check_context(generation_config, generation_config.max_length)

    def _check_window(self) -> None:
        """Raises an error where only the mask tells learned positions, as a window shortens the mask."""
        told = {name for runtime in self.engine.runtimes for name in runtime.ladder.largest.input_names}
        has_learned = getattr(self.config, "max_position_embeddings", None)
        if self.can_use_cache and has_learned and POSITIONS.isdisjoint(told):
            raise ShapeMismatchError(
                "overflow='window' cannot work for these graphs: the model has learned positions and takes none, so "
                "that they could not go on counting behind forgotten tokens. Load the graphs with a larger "
                "context_length."
            )

    def _check_context(self, generation_config: Any, tokens: int) -> None:
        if not generation_config._slides:
            check_context(tokens, self.context_length)

    def read_whole(self, tokens: Tokens, inputs: Mapping[str, Array], *, keep: int, slide: bool) -> Array:
        """Returns the logits of a text ``(rows, tokens, vocabulary)`` from a graph without a cache.

        Args:
            tokens: All tokens of the text.
            inputs: What else the graph takes.
            keep: Logits of the last `keep` tokens only; 0 for all.
            slide: Leave out the first tokens of a text longer than the graph.

        Raises:
            InputTooLongError: The text is longer than the graph.
        """
        assert self.engine.whole is not None  # graphs without a cache are kept there
        limit = self.context_length
        if not slide:
            check_context(tokens.ids.shape[1], limit)
        first = max(tokens.ids.shape[1] - limit, 0) if limit else 0
        mask = tokens.mask[:, first:]
        feed = {
            "input_ids": tokens.ids[:, first:],
            "position_ids": tokens.positions[:, first:],
            "attention_mask": mask,
            "decoder_attention_mask": mask,
            **inputs,
        }
        return self.engine.whole.run([feed])[0]["logits"][:, -keep:]

    def _reorder_cache(self, past_key_values: Any, beam_idx: Any) -> Any:
        past_key_values.reorder_cache(beam_idx)
        return past_key_values

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Returns the model on another device; see `SessionMixin.to`."""
        before = self.runtime
        super().to(*args, **kwargs)
        if self.runtime is not before:  # pragma: no cover  # needs onnxruntime-gpu
            pool = self.runtime.pool
            self.engine = self.engine.on(pool.providers[0], pool.provider_options[0])
            self.runtime = self.engine.runtimes[0]
        return self

    @staticmethod
    def _find(source: str | Path, **options: Any) -> Parts:
        return find_parts(source, **options)

    @staticmethod
    def _runtime_of(parts: Parts, fill: Fill, pool: SessionPool) -> Engine:
        def runtime(rungs: Rungs | None) -> Runtime | None:
            return Runtime(rungs.ladder, rungs.paths, fill=fill, pool=pool) if rungs else None

        first, following, encoder = map(runtime, (parts.first, parts.following, parts.encoder))
        if following is None:
            return Engine(parts.ladder, None, encoder, first, parts.scratch)
        return Engine(parts.ladder, Decoder(following, first), encoder, None, parts.scratch)


def tokens_among(given: Mapping[str, Any], name: str, owner: str) -> Array:
    """Returns the token ids called `name`, ``(rows, tokens)``.

    Raises:
        MissingInputError: They did not come.
        ShapeMismatchError: There is no row or no token.
    """
    if given.get(name) is None:
        came = tuple(key for key, value in given.items() if value is not None)
        raise MissingInputError(
            f"{owner} needs {name}; what came is: {', '.join(came) or 'nothing'}.", missing=(name,), given=came
        )
    ids: Array = np.asarray(as_array(given[name]))
    if ids.ndim != 2 or not ids.size:
        raise ShapeMismatchError(f"{name} must be (rows, tokens), with one of each at least, got shape {ids.shape}.")
    return ids


def mask_or_ones(mask: Any, rows: int, length: int) -> Array:
    """Returns a mask as NumPy, all ones where none came."""
    return np.ones((rows, length), np.int64) if mask is None else np.asarray(as_array(mask), np.int64)


def positions_or_counted(positions: Any, seen: int, rows: int, new: int) -> Array:
    """Returns positions as NumPy, ``(rows, new)``; counted on from the tokens seen where none came, as in PyTorch."""
    if positions is None:
        return np.broadcast_to(np.arange(seen, seen + new, dtype=np.int64), (rows, new))
    return np.broadcast_to(np.asarray(as_array(positions), np.int64), (rows, new))


def _generation_config(home: Path, config: Any) -> GenerationConfig:
    if (home / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(home)
    return GenerationConfig.from_model_config(config)


def _engine_of(session: ort.InferenceSession, fill: Fill) -> Engine:
    """An engine around the open session of a decoder."""
    runtime = Runtime.of_session(session, fill=fill)
    contract = runtime.ladder.largest
    outer = ladder_of_texts(contract)
    return Engine(outer, None, whole=runtime) if PAST not in contract.sizes else Engine(outer, Decoder(runtime))
