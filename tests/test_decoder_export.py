"""Graphs of decoders with a cache of fixed length, run step by step in real sessions beside their originals."""

from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import transformers

from optimum_fixedshape.errors import ExportError
from optimum_fixedshape.export.decoder_modules import position_tables
from optimum_fixedshape.export.decoders import (
    CacheSizes,
    DecoderSpec,
    decoder_spec,
    export_decoder,
    export_encoder,
    export_first,
    export_following,
)

BATCH, NEW, PAST, VOCABULARY = 2, 8, 16, 96
CHUNKS = (5, 1, 1, 3, 1)  # every chunk but the single steps is shorter than the graph's NEW
LENGTH = sum(CHUNKS)
PADDED = (0, 2)  # tokens of padding on the left, by row
SOURCES = (6, 4)  # real tokens of the encoder's text, by row
JUNK = 1000.0
TOLERANCE = 1e-4

WORDS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
HALVES = {
    **{f"{half}_{name}": size for half in ("encoder", "decoder") for name, size in (("layers", 2), ("ffn_dim", 48))},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "d_model": 32, "decoder_start_token_id": 2},
}
POSITIONS = {"max_position_embeddings": LENGTH}  # what fills the last graphs up stands behind the last one


@dataclass(frozen=True)
class Case:
    name: str  # of the model's class, without its head
    sizes: dict
    head: str = "ForCausalLM"
    heads: int = 4
    has_positions: bool = True
    uses_encoder_mask: bool = True
    source: dict = field(default_factory=lambda: {"input_ids": (BATCH, max(SOURCES))})

    def config(self):
        return getattr(transformers, f"{self.name}Config")(**{**WORDS, **self.sizes})

    def build(self):
        torch.manual_seed(0)
        model = getattr(transformers, self.name + self.head)(self.config()).eval()
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.is_floating_point():  # fresh weights are so small that a lost mask would go unnoticed
                    tensor.add_(torch.randn_like(tensor) * 0.2)
        return model


class Pictures(Case):
    def config(self):
        vision = transformers.ViTConfig(
            **{**SMALL, "hidden_size": 24, "num_hidden_layers": 1}, image_size=16, patch_size=8
        )
        config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, self.text())
        config.decoder_start_token_id, config.pad_token_id = 2, 0
        return config

    def text(self):
        return getattr(transformers, f"{self.sizes['decoder']}Config")(**WORDS, **self.sizes["sizes"])


DECODERS = {
    "gpt2": Case("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}, "LMHeadModel"),
    "llama": Case("Llama", {**SMALL, "num_key_value_heads": 2}, heads=2),
    "qwen2": Case("Qwen2", {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": True}, heads=2),
    "mistral": Case("Mistral", {**SMALL, "num_key_value_heads": 1, "sliding_window": 4}, heads=1),
    "opt": Case("OPT", {**SMALL, **POSITIONS, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": Case("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, has_positions=False),
    "bart": Case("Bart", {**HALVES, **POSITIONS, "is_decoder": True, "is_encoder_decoder": False}),
    "xglm": Case("XGLM", {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4, **POSITIONS}),
}
SOUND = {"num_mel_bins": 10, "max_source_positions": 12, "max_target_positions": LENGTH}
T5_SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
TROCR_SIZES = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, **POSITIONS}
GPT2_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
WRITTEN = "ForConditionalGeneration"
IMAGE = {"pixel_values": (BATCH, 3, 16, 16)}
SEQ2SEQ = {
    "t5": Case("T5", {**T5_SIZES, "relative_attention_num_buckets": 8}, WRITTEN, has_positions=False),
    "bart": Case("Bart", {**HALVES, **POSITIONS}, WRITTEN),
    "marian": Case("Marian", {**HALVES, **POSITIONS}, "MTModel"),
    "m2m_100": Case("M2M100", {**HALVES, **POSITIONS}, WRITTEN),
    "whisper": Case(
        "Whisper", {**HALVES, **SOUND}, WRITTEN, uses_encoder_mask=False, source={"input_features": (BATCH, 10, 24)}
    ),
    "trocr": Pictures(
        "VisionEncoderDecoder",
        {"decoder": "TrOCR", "sizes": TROCR_SIZES},
        "Model",
        uses_encoder_mask=False,
        source=IMAGE,
    ),
    "trocr-waves": Pictures(
        "VisionEncoderDecoder",
        {"decoder": "TrOCR", "sizes": {**TROCR_SIZES, "use_learned_position_embeddings": False}},
        "Model",
        uses_encoder_mask=False,
        source=IMAGE,
    ),
    "vit-gpt2": Pictures(
        "VisionEncoderDecoder", {"decoder": "GPT2", "sizes": GPT2_SIZES}, "Model", uses_encoder_mask=False, source=IMAGE
    ),
}


def session(graph):
    return ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def shapes(values):
    return {value.name: tuple(value.shape) for value in values}


def text():
    """Token ids and mask: the rows have PADDED tokens of padding on the left."""
    ids = np.random.default_rng(3).integers(5, VOCABULARY, (BATCH, LENGTH))
    return ids, (np.arange(LENGTH) >= np.array(PADDED)[:, None]).astype(np.int64)


def positions_of(mask):
    return np.maximum(mask.cumsum(axis=1) - 1, 0)


def filled(tokens, room):
    """Tokens with others behind them, which no real token may see."""
    return np.pad(tokens, ((0, 0), (0, room - tokens.shape[1])), constant_values=7)


def placed(mask, slots, seen, new, room):
    """The mask of the slots, of which the last hold what was seen, and of the new tokens."""
    placed = np.zeros((BATCH, slots + room), np.int64)
    placed[:, slots - seen : slots + new] = mask[:, : seen + new]
    return placed


def empty_cache(names_and_shapes):
    """Slots that nothing was put in yet, full of what was there before."""
    numbers = np.random.default_rng(5)
    return {
        name: (numbers.standard_normal(shape) * JUNK).astype(np.float32)
        for name, shape in names_and_shapes.items()
        if name.startswith("past_key_values") and ".encoder." not in name
    }


def added(kept, outputs, new):
    """The cache with the new tokens at its end; the first slots fall off."""
    for name, past in kept.items():
        present = outputs[name.replace("past_key_values", "present")][:, :, :new]
        kept[name] = np.concatenate([past, present], axis=2)[:, :, -PAST:]


def run(graph, feeds):
    names = [value.name for value in graph.get_outputs()]
    return dict(zip(names, graph.run(names, feeds), strict=True))


def assert_equal(got, expected):
    """The logits of every real token are those of the original, which has each row alone and without padding."""
    assert np.ptp(expected[0]) > 1
    for row, (padded, logits) in enumerate(zip(PADDED, expected, strict=True)):
        assert np.abs(got[row, padded:] - logits).max() < TOLERANCE


class Decoder:
    def __init__(self, case):
        self.case, self.model = case, case.build()
        self.spec = decoder_spec(self.model)
        self.graphs = {new: export_decoder(self.model, self.spec, batch=BATCH, new=new, past=PAST) for new in (NEW, 1)}

    @cached_property
    def sessions(self):
        return {new: session(graph) for new, graph in self.graphs.items()}

    def logits(self, move=lambda positions: positions):
        ids, mask = text()
        kept, seen, found = empty_cache(shapes(self.sessions[1].get_inputs())), 0, []
        for new in CHUNKS:
            room = NEW if new > 1 else 1
            feeds = {
                "input_ids": filled(ids[:, seen : seen + new], room),
                "attention_mask": placed(mask, PAST, seen, new, room),
                **kept,
            }
            if self.case.has_positions:
                feeds["position_ids"] = filled(move(positions_of(mask))[:, seen : seen + new], room)
            outputs = run(self.sessions[room], feeds)
            added(kept, outputs, new)
            found.append(outputs["logits"][:, :new])
            seen += new
        return np.concatenate(found, axis=1)

    def expected(self):
        ids, _ = text()
        with torch.no_grad():
            rows = [torch.from_numpy(ids[row : row + 1, padded:]) for row, padded in enumerate(PADDED)]
            return [self.model(input_ids=row).logits[0].numpy() for row in rows]


class Seq2Seq:
    def __init__(self, case):
        self.case, self.model = case, case.build()
        self.spec = decoder_spec(self.model)
        source = self.source()
        example = {name: torch.from_numpy(array) for name, array in source.items()}
        self.encoder = export_encoder(self.model, example=example)
        self.places = self.encoder.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        sizes = {"batch": BATCH, "source": self.places}
        self.first = export_first(self.model, self.spec, new=NEW, **sizes)
        self.following = {new: export_following(self.model, self.spec, new=new, past=PAST, **sizes) for new in (NEW, 1)}

    @cached_property
    def sessions(self):
        graphs = {"encoder": self.encoder, "first": self.first, **self.following}
        return {name: session(graph) for name, graph in graphs.items()}

    def source(self):
        ((name, shape),) = self.case.source.items()
        numbers = np.random.default_rng(1)
        if name != "input_ids":
            return {name: numbers.standard_normal(shape).astype(np.float32)}
        mask = (np.arange(shape[1]) < np.array(SOURCES)[:, None]).astype(np.int64)
        return {name: np.where(mask, numbers.integers(5, VOCABULARY, shape), 0), "attention_mask": mask}

    def logits(self, move=0):
        ids, mask = text()
        source = self.source()
        encoded = run(self.sessions["encoder"], source)["last_hidden_state"]
        inputs = shapes(self.sessions[1].get_inputs())
        kept, cross, seen, found = empty_cache(inputs), {}, 0, []
        for new in CHUNKS:
            room, slots = (NEW if new > 1 else 1), (PAST if seen else 0)
            feeds = {
                "input_ids": filled(ids[:, seen : seen + new], room),
                "decoder_attention_mask": placed(mask, slots, seen, new, room),
            }
            if self.case.has_positions:
                feeds["position_offset"] = seen - slots - np.array(PADDED)[:, None] + move
            if self.case.uses_encoder_mask:
                feeds["encoder_attention_mask"] = source["attention_mask"]
            if seen:
                outputs = run(self.sessions[room], {**feeds, **kept, **cross})
            else:
                outputs = run(self.sessions["first"], {**feeds, "encoder_hidden_states": encoded})
                cross = {
                    name.replace("present", "past_key_values"): array
                    for name, array in outputs.items()
                    if ".encoder." in name
                }
            added(kept, outputs, new)
            found.append(outputs["logits"][:, :new])
            seen += new
        return np.concatenate(found, axis=1)

    def expected(self):
        ids, _ = text()
        source = self.source()
        lengths = SOURCES if "attention_mask" in source else [None] * BATCH
        found = []
        for row, padded in enumerate(PADDED):
            alone = {name: torch.from_numpy(array[row : row + 1]) for name, array in source.items()}
            if lengths[row]:
                alone = {name: tensor[:, : lengths[row]] for name, tensor in alone.items()}
            decoded = torch.from_numpy(ids[row : row + 1, padded:])
            with torch.no_grad():
                found.append(self.model(**alone, decoder_input_ids=decoded).logits[0].numpy())
        return found


@cache
def decoder(name):
    return Decoder(DECODERS[name])


@cache
def seq2seq(name):
    return Seq2Seq(SEQ2SEQ[name])


@pytest.mark.parametrize("name", DECODERS)
def test_chunks_and_steps_give_the_logits_of_the_whole_text(name):
    assert_equal(decoder(name).logits(), decoder(name).expected())


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_a_decoder_with_an_encoder_gives_the_logits_of_the_whole_text(name):
    assert_equal(seq2seq(name).logits(), seq2seq(name).expected())


@pytest.mark.parametrize("name", [name for name, case in DECODERS.items() if case.has_positions])
def test_positions_are_those_that_are_passed_in(name):
    moved = decoder(name).logits(move=lambda positions: positions // 2)
    assert np.abs(moved - decoder(name).logits())[:, PADDED[1] + 1 :].max() > 1e-2


@pytest.mark.parametrize("name", [name for name, case in SEQ2SEQ.items() if case.has_positions])
def test_positions_follow_the_offset(name):
    assert np.abs(seq2seq(name).logits(move=-1) - seq2seq(name).logits()).max() > 1e-2


@pytest.mark.parametrize("name", DECODERS)
def test_inputs_and_outputs_of_a_decoder(name):
    case, pair = DECODERS[name], decoder(name)
    for new, graph in pair.sessions.items():
        caches = {f"{layer}.{kind}": case.heads for layer in range(2) for kind in ("key", "value")}
        assert list(shapes(graph.get_inputs()).items()) == [
            ("input_ids", (BATCH, new)),
            ("attention_mask", (BATCH, PAST + new)),
            *([("position_ids", (BATCH, new))] if case.has_positions else []),
            *((f"past_key_values.{place}", (BATCH, heads, PAST, 8)) for place, heads in caches.items()),
        ]
        assert list(shapes(graph.get_outputs()).items()) == [
            ("logits", (BATCH, new, VOCABULARY)),
            *((f"present.{place}", (BATCH, heads, new, 8)) for place, heads in caches.items()),
        ]


def caches(prefix, lengths):
    return [
        (f"{prefix}.{layer}.{part}.{kind}", (BATCH, 4, length, 8))
        for layer in range(2)
        for part, length in lengths.items()
        for kind in ("key", "value")
    ]


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_inputs_and_outputs_of_a_decoder_with_an_encoder(name):
    case, pair = SEQ2SEQ[name], seq2seq(name)
    encoded, source = pair.spec.encoded_size, pair.places
    offset = [("position_offset", (BATCH, 1))] if case.has_positions else []
    mask = [("encoder_attention_mask", (BATCH, source))] if case.uses_encoder_mask else []
    first = pair.sessions["first"]
    assert list(shapes(first.get_inputs()).items()) == [
        *(("input_ids", (BATCH, NEW)), ("decoder_attention_mask", (BATCH, NEW)), *offset),
        *(("encoder_hidden_states", (BATCH, source, encoded)), *mask),
    ]
    assert list(shapes(first.get_outputs()).items()) == [
        ("logits", (BATCH, NEW, VOCABULARY)),
        *caches("present", {"decoder": NEW, "encoder": source}),
    ]
    for new in (NEW, 1):
        assert list(shapes(pair.sessions[new].get_inputs()).items()) == [
            *(("input_ids", (BATCH, new)), ("decoder_attention_mask", (BATCH, PAST + new)), *offset, *mask),
            *caches("past_key_values", {"decoder": PAST, "encoder": source}),
        ]
        assert list(shapes(pair.sessions[new].get_outputs()).items()) == [
            ("logits", (BATCH, new, VOCABULARY)),
            *caches("present", {"decoder": new}),
        ]
    assert shapes(pair.sessions["encoder"].get_inputs()).keys() == pair.source().keys()
    assert shapes(pair.sessions["encoder"].get_outputs()) == {"last_hidden_state": (BATCH, source, encoded)}


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_steps_that_follow_hold_nothing_that_reads_the_encoder(name):
    pair = seq2seq(name)
    made_from_encoded = ("encoder_attn.v_proj", "crossattention.c_attn", "enc_to_dec_proj")
    for new, graph in pair.following.items():
        names = [each.name for each in graph.graph.initializer]
        assert not [each for each in names for part in made_from_encoded if part in each], new
        onnx.checker.check_model(graph, full_check=True)
    if name != "t5":  # it has no biases, and weights lose their names
        held = [each.name for each in pair.first.graph.initializer]
        assert [each for each in held for part in made_from_encoded if part in each]


def test_what_one_run_tells_of_a_model():
    sizes = CacheSizes(heads=4, key=8, value=8)
    assert seq2seq("trocr").spec == DecoderSpec((sizes,) * 2, (sizes,) * 2, has_positions=True, encoded_size=24)
    assert decoder("llama").spec == DecoderSpec((CacheSizes(heads=2, key=8, value=8),) * 2, has_positions=True)
    assert seq2seq("t5").spec.is_encoder_decoder
    assert not decoder("bloom").spec.is_encoder_decoder


def state_of(model):
    modes = {name: module.training for name, module in model.named_modules()}
    return modes, model.config._attn_implementation, [vars(table).get("forward") for table in position_tables(model)]


def test_the_model_comes_back_as_it_was():
    model = SEQ2SEQ["bart"].build().train()
    model.model.decoder.layers[0].eval()
    (table,) = position_tables(model)
    before, weights = state_of(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    spec = decoder_spec(model)
    assert state_of(model) == before
    export_following(model, spec, batch=1, new=1, past=4, source=3)
    assert state_of(model) == before
    table.forward = own = table.forward
    wrong = DecoderSpec(
        spec.own, (CacheSizes(3, 8, 8),) * 2, has_positions=True, uses_encoder_mask=True, encoded_size=32
    )
    with pytest.raises(ExportError):
        export_following(model, wrong, batch=1, new=1, past=4, source=3)
    assert state_of(model) == (*before[:2], [own])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_an_error_names_the_model_and_the_shapes():
    wrong = DecoderSpec((CacheSizes(heads=3, key=8, value=8),) * 2, has_positions=True)
    with pytest.raises(ExportError) as caught:
        export_decoder(decoder("gpt2").model, wrong, batch=1, new=2, past=4)
    start = (
        "GPT2LMHeadModel cannot be exported at input_ids [1, 2], attention_mask [1, 6], position_ids [1, 2], past_key"
    )
    assert str(caught.value).startswith(start)
    assert caught.value.architecture == "GPT2LMHeadModel"
    assert caught.value.shapes["past_key_values.1.value"] == (1, 3, 4, 8)


def test_a_model_without_keys_and_values_is_refused():
    config = transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1)
    with pytest.raises(ExportError, match=r"^MambaForCausalLM cannot be exported at input_ids \[1, 2\]: "):
        decoder_spec(transformers.MambaForCausalLM(config))
