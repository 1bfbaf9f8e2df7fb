# With "as", which is what exports a name from a stub, isort wants a statement for each name.
# ruff: noqa: I001
"""The public names, where type checkers look for them: `__init__.py` imports each when it is first used."""

from .bare import write_config as write_config
from .batching import Batcher as Batcher
from .bench import bench_model as bench_model
from .checking.check import check_model as check_model
from .config import FixedShapeConfig as FixedShapeConfig
from .contract import ShapeContract as ShapeContract
from .detecting import detect_task as detect_task
from .errors import (
    FixedShapeError as FixedShapeError,
    InputTooLongError as InputTooLongError,
    InvalidModelError as InvalidModelError,
)
from .export.folder import export_model as export_model
from .feeds import generate_inputs as generate_inputs
from .graph.reader import read_contract as read_contract
from .ladder import ShapeLadder as ShapeLadder
from .ladder_report import report_ladder as report_ladder
from .models.auto import AutoModelForONNX as AutoModelForONNX
from .models.classes import (
    ORTModelForAudioClassification as ORTModelForAudioClassification,
    ORTModelForAudioFrameClassification as ORTModelForAudioFrameClassification,
    ORTModelForAudioXVector as ORTModelForAudioXVector,
    ORTModelForCausalLM as ORTModelForCausalLM,
    ORTModelForCTC as ORTModelForCTC,
    ORTModelForCustomTasks as ORTModelForCustomTasks,
    ORTModelForDepthEstimation as ORTModelForDepthEstimation,
    ORTModelForDocumentQuestionAnswering as ORTModelForDocumentQuestionAnswering,
    ORTModelForFeatureExtraction as ORTModelForFeatureExtraction,
    ORTModelForImageClassification as ORTModelForImageClassification,
    ORTModelForMaskedLM as ORTModelForMaskedLM,
    ORTModelForMultipleChoice as ORTModelForMultipleChoice,
    ORTModelForObjectDetection as ORTModelForObjectDetection,
    ORTModelForQuestionAnswering as ORTModelForQuestionAnswering,
    ORTModelForSemanticSegmentation as ORTModelForSemanticSegmentation,
    ORTModelForSeq2SeqLM as ORTModelForSeq2SeqLM,
    ORTModelForSequenceClassification as ORTModelForSequenceClassification,
    ORTModelForSpeechSeq2Seq as ORTModelForSpeechSeq2Seq,
    ORTModelForTokenClassification as ORTModelForTokenClassification,
    ORTModelForVideoClassification as ORTModelForVideoClassification,
    ORTModelForVision2Seq as ORTModelForVision2Seq,
    ORTModelForZeroShotAudioClassification as ORTModelForZeroShotAudioClassification,
    ORTModelForZeroShotImageClassification as ORTModelForZeroShotImageClassification,
)
from .pinning import pin_shapes as pin_shapes
from .pipelines.factory import pipeline as pipeline
from .pipelines.registry import register_pipelines as register_pipelines
from .processors.auto import (
    AutoFeatureExtractor as AutoFeatureExtractor,
    AutoImageProcessor as AutoImageProcessor,
    AutoProcessor as AutoProcessor,
    AutoTokenizer as AutoTokenizer,
    AutoVideoProcessor as AutoVideoProcessor,
    ONNXAutoProcessor as ONNXAutoProcessor,
)
from .suggesting import suggest_ladder as suggest_ladder

AutoModel = ORTModelForFeatureExtraction
AutoModelForAudioClassification = ORTModelForAudioClassification
AutoModelForAudioFrameClassification = ORTModelForAudioFrameClassification
AutoModelForAudioXVector = ORTModelForAudioXVector
AutoModelForCTC = ORTModelForCTC
AutoModelForCausalLM = ORTModelForCausalLM
AutoModelForDepthEstimation = ORTModelForDepthEstimation
AutoModelForDocumentQuestionAnswering = ORTModelForDocumentQuestionAnswering
AutoModelForImageClassification = ORTModelForImageClassification
AutoModelForMaskedLM = ORTModelForMaskedLM
AutoModelForMultipleChoice = ORTModelForMultipleChoice
AutoModelForObjectDetection = ORTModelForObjectDetection
AutoModelForQuestionAnswering = ORTModelForQuestionAnswering
AutoModelForSemanticSegmentation = ORTModelForSemanticSegmentation
AutoModelForSeq2SeqLM = ORTModelForSeq2SeqLM
AutoModelForSequenceClassification = ORTModelForSequenceClassification
AutoModelForSpeechSeq2Seq = ORTModelForSpeechSeq2Seq
AutoModelForTokenClassification = ORTModelForTokenClassification
AutoModelForVideoClassification = ORTModelForVideoClassification
AutoModelForVision2Seq = ORTModelForVision2Seq
AutoModelForZeroShotImageClassification = ORTModelForZeroShotImageClassification

__version__: str
__all__: list[str]
