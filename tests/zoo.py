"""Models that see and hear, from their configs with a fixed seed, with their processors."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from . import tiny

PIXELS, PATCH = 32, 8
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_SEES = {**_SMALL, "image_size": PIXELS, "patch_size": PATCH}
_SPEAKS = {**_SMALL, "vocab_size": 30522, "max_position_embeddings": 40, "pad_token_id": 0}
_HEARS = {
    **_SMALL,
    **{"conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3},
    **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "vocab_size": 32, "pad_token_id": 0},
    **{"feat_extract_norm": "layer", "do_stable_layer_norm": True, "classifier_proj_size": 16},
}
_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
_QUERIES = {
    **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 6, "auxiliary_loss": False},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
    **{"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None},
}
_LABELS = {"id2label": dict(enumerate(["cat", "dog", "bird"])), "label2id": {"cat": 0, "dog": 1, "bird": 2}}
_SQUARE = {"height": PIXELS, "width": PIXELS}

SAMPLES = [800, 1600]


@dataclass(frozen=True)
class Specimen:
    """How to make a model and its processor, and the shapes of its graphs."""

    task: str
    head: str
    config: Callable[[], Any]
    processor: Callable[[], Any]
    shapes: Mapping[str, Any] = field(default_factory=dict)


def image_processor(name: str, **settings: Any) -> Any:
    """Returns an image processor of transformers, whatever the installed version calls it without torchvision."""
    found = getattr(transformers, f"{name}ImageProcessorPil", None) or getattr(transformers, f"{name}ImageProcessor")
    return found(**settings)


def _resnet(**changes: Any) -> Any:
    return transformers.ResNetConfig(**{**_RESNET, **changes})


def _waveform_extractor(*, mask: bool = True) -> Any:
    return transformers.Wav2Vec2FeatureExtractor(sampling_rate=1000, return_attention_mask=mask)


def _speech_processor() -> Any:
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vocab.json")
        file.write_text(json.dumps({letter: index for index, letter in enumerate(letters)}))
        tokenizer = transformers.Wav2Vec2CTCTokenizer(str(file))
    return transformers.Wav2Vec2Processor(_waveform_extractor(), tokenizer)


def _seeing(name: str, **settings: Any) -> Callable[[], Any]:
    return functools.partial(image_processor, name, **settings)


def _config(name: str, **settings: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, f"{name}Config")(**settings)


def _hearing(
    name: str, head: str, task: str, processor: Callable[[], Any] = _waveform_extractor, **more: Any
) -> Specimen:
    shapes = {"batch_size": 2, "audio_sequence_length": SAMPLES}
    return Specimen(task, head, _config(name, **{**_HEARS, **_LABELS, **more}), processor, shapes)


def _clip_processor(name: str) -> Any:
    names = ["input_ids"] if name == "Siglip" else ["input_ids", "attention_mask"]
    words = transformers.AutoTokenizer.from_pretrained(tiny.MINILM, model_max_length=40, model_input_names=names)
    pixels = image_processor(
        name,
        size={"shortest_edge": PIXELS} if name == "CLIP" else _SQUARE,
        **({"crop_size": _SQUARE} if name == "CLIP" else {}),
    )
    return getattr(transformers, f"{name}Processor")(image_processor=pixels, tokenizer=words)


def _clap_processor() -> Any:
    ears = transformers.ClapFeatureExtractor(
        **{"feature_size": 16, "sampling_rate": 8000, "hop_length": 160, "max_length_s": 1, "fft_window_size": 256},
        frequency_max=4000,
        truncation="rand_trunc",
    )
    return transformers.ClapProcessor(
        feature_extractor=ears, tokenizer=_bpe_tokenizer("RobertaTokenizerFast", model_max_length=38)
    )


def _layout_processor() -> Any:
    pixels = image_processor("LayoutLMv3", apply_ocr=False, size=_SQUARE)
    return transformers.LayoutLMv3Processor(
        image_processor=pixels, tokenizer=_bpe_tokenizer("LayoutLMv3TokenizerFast", model_max_length=62)
    )


def _bpe_tokenizer(name: str, **settings: Any) -> Any:
    """The BPE tokenizer of the other tests, as an object of the class that a combined processor asks for."""
    model = json.loads(tiny.tokenizer("bpe").backend_tokenizer.to_str())["model"]
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(model["vocab"]))
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
        return getattr(transformers, name).from_pretrained(folder, **settings)


def _two_towers(name: str, texts: Any, images: Any, **shapes: Any) -> Specimen:
    config = _config(
        name, text_config=texts, vision_config=images, **({} if name == "Siglip" else {"projection_dim": 16})
    )
    return Specimen(
        "zero-shot-image-classification", f"{name}Model", config, functools.partial(_clip_processor, name), shapes
    )


ZOO: Mapping[str, Specimen] = {
    "resnet-50": Specimen(
        "image-classification",
        "ResNetForImageClassification",
        _config("ResNet", **_LABELS),
        _seeing("ConvNext", size={"shortest_edge": 224}),
    ),
    "vit": Specimen(
        "image-classification",
        "ViTForImageClassification",
        _config("ViT", **_SEES, **_LABELS),
        _seeing("ViT", size=_SQUARE),
        {"batch_size": 2},
    ),
    "convnext": Specimen(
        "image-classification",
        "ConvNextForImageClassification",
        _config("ConvNext", hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], image_size=64, **_LABELS),
        _seeing("ConvNext", size={"shortest_edge": 64}),
    ),
    "swin": Specimen(
        "image-classification",
        "SwinForImageClassification",
        _config(
            "Swin",
            image_size=PIXELS,
            patch_size=4,
            embed_dim=16,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=4,
            **_LABELS,
        ),
        _seeing("ViT", size=_SQUARE),
    ),
    "mobilenet-v2": Specimen(
        "image-classification",
        "MobileNetV2ForImageClassification",
        _config("MobileNetV2", **_LABELS),
        _seeing("MobileNetV2"),
    ),
    "vit-encoder": Specimen(
        "image-feature-extraction", "ViTModel", _config("ViT", **_SEES), _seeing("ViT", size=_SQUARE), {"batch_size": 2}
    ),
    "detr": Specimen(
        "object-detection",
        "DetrForObjectDetection",
        lambda: transformers.DetrConfig(**_QUERIES, **_LABELS, backbone_config=_resnet(out_features=["stage4"])),
        _seeing("Detr", size={"shortest_edge": 64, "longest_edge": 96}),
    ),
    "yolos": Specimen(
        "object-detection",
        "YolosForObjectDetection",
        _config("Yolos", **{**_SEES, "image_size": [64, 96]}, num_detection_tokens=6, **_LABELS),
        _seeing("Yolos", size={"height": 64, "width": 96}, do_pad=False),
    ),
    "segformer": Specimen(
        "image-segmentation",
        "SegformerForSemanticSegmentation",
        _config(
            "Segformer",
            hidden_sizes=[16] * 4,
            depths=[1] * 4,
            decoder_hidden_size=16,
            num_attention_heads=[1, 1, 2, 2],
            **_LABELS,
        ),
        _seeing("Segformer", size={"height": 64, "width": 64}),
    ),
    "dpt": Specimen(
        "depth-estimation",
        "DPTForDepthEstimation",
        _config(
            "DPT",
            **{**_SEES, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [16] * 4},
            fusion_hidden_size=16,
            reassemble_factors=[4, 2, 1, 0.5],
        ),
        _seeing("DPT", size=_SQUARE),
    ),
    "wav2vec2": _hearing("Wav2Vec2", "Wav2Vec2ForCTC", "automatic-speech-recognition", _speech_processor),
    "hubert": _hearing("Hubert", "HubertForCTC", "automatic-speech-recognition", _speech_processor),
    "wav2vec2-classes": _hearing("Wav2Vec2", "Wav2Vec2ForSequenceClassification", "audio-classification"),
    "wav2vec2-frames": _hearing("Wav2Vec2", "Wav2Vec2ForAudioFrameClassification", "audio-frame-classification"),
    "wav2vec2-xvector": _hearing(
        "Wav2Vec2", "Wav2Vec2ForXVector", "audio-xvector", tdnn_dim=(16, 16, 16, 16, 24), xvector_output_dim=16
    ),
    "wav2vec2-encoder": _hearing("Wav2Vec2", "Wav2Vec2Model", "feature-extraction"),
    "ast": Specimen(
        "audio-classification",
        "ASTForAudioClassification",
        _config("AST", **_SMALL, max_length=64, num_mel_bins=32, patch_size=16, **_LABELS),
        lambda: transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=64),
        {"batch_size": 2},
    ),
    "whisper-encoder": Specimen(
        "audio-classification",
        "WhisperForAudioClassification",
        _config(
            "Whisper",
            **{"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 32},
            **{"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 32},
            **{"num_mel_bins": 20, "max_source_positions": 50, "classifier_proj_size": 16},
            **_LABELS,
        ),
        lambda: transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=1),
    ),
    "videomae": Specimen(
        "video-classification",
        "VideoMAEForVideoClassification",
        _config("VideoMAE", **_SEES, num_frames=4, **_LABELS),
        _seeing("VideoMAE", size={"shortest_edge": PIXELS}, crop_size=_SQUARE),
        {"batch_size": 2},
    ),
    "timesformer": Specimen(
        "video-classification",
        "TimesformerForVideoClassification",
        _config("Timesformer", **_SEES, num_frames=4, **_LABELS),
        _seeing("VideoMAE", size={"shortest_edge": PIXELS}, crop_size=_SQUARE),
    ),
    "clip": _two_towers(
        "CLIP", {**_SPEAKS, "eos_token_id": 102, "bos_token_id": 101}, _SEES, image_batch_size=2, text_batch_size=3
    ),
    "siglip": _two_towers("Siglip", {**_SPEAKS, "max_position_embeddings": 64}, _SEES, image_batch_size=2),
    "blip": _two_towers("Blip", {**_SPEAKS, "encoder_hidden_size": 32}, _SEES),
    "clap": Specimen(
        "zero-shot-audio-classification",
        "ClapModel",
        lambda: transformers.ClapConfig(
            text_config={**_SPEAKS, "vocab_size": 600, "pad_token_id": 1},
            audio_config={
                **{"hidden_size": 32, "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2]},
                **{"num_hidden_layers": 2, "spec_size": 64, "num_mel_bins": 16, "window_size": 4, "projection_dim": 16},
            },
            projection_dim=16,
        ),
        _clap_processor,
        {"audio_batch_size": 2, "text_batch_size": 3, "sequence_length": 32},
    ),
    "layoutlmv3": Specimen(
        "document-question-answering",
        "LayoutLMv3ForQuestionAnswering",
        _config(
            "LayoutLMv3",
            **{**_SPEAKS, "vocab_size": 600, "pad_token_id": 1, "max_position_embeddings": 64},
            **{"input_size": PIXELS, "patch_size": PATCH, "coordinate_size": 5, "shape_size": 6, "type_vocab_size": 1},
        ),
        _layout_processor,
        {"sequence_length": [32, 62]},
    ),
    "layoutlm": Specimen(
        "document-question-answering",
        "LayoutLMForQuestionAnswering",
        _config("LayoutLM", **{**_SPEAKS, "max_position_embeddings": 64}),
        lambda: transformers.AutoTokenizer.from_pretrained(tiny.MINILM, model_max_length=64),
        {"sequence_length": [32, 64]},
    ),
}


@functools.cache
def original(name: str) -> Any:
    """Returns a PyTorch model whose numbers tell inputs apart, the same at every call."""
    specimen = ZOO[name]
    torch.manual_seed(0)
    model = getattr(transformers, specimen.head)(specimen.config()).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    _learn_statistics(model)
    return model


def _learn_statistics(model: Any) -> None:
    """Lets batch normalization see numbers like those to come: else they grow, or vanish, from layer to layer."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if norms and model.main_input_name == "pixel_values":
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(torch.randn(4, 3, 64, 64))
        model.eval()


@functools.cache
def processor(name: str) -> Any:
    return ZOO[name].processor()
