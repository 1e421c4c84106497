"""Writes a bundle as a folder for DeepStream's nvinfer.

model.onnx                 float32 frames [N, 3, H, W] of 0 … 255 to scores; resizes and crops
config_infer.txt           nvinfer's configuration
tags.tsv                   names, thresholds and probability maps, which the parser reads
labels.txt                 names alone, as nvinfer reads them
nvdsinfer_taidpt.cpp       the parser; built on the device
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taidpt.export.graph.from_bundle import fp32_bundle, load_graph
from taidpt.export.graph.onnx_files import finish_graph, save_graph
from taidpt.export.graph.resize import FrameInput, prepend_resize
from taidpt.runtime.bundle.bundle import MODEL_FILE, Bundle
from taidpt.runtime.bundle.input_spec import NV12, InputSpec
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.printable import printable
from taidpt.runtime.results import Vocabulary
from taidpt.runtime.storage.temporary_folder import TemporaryFolder
from taidpt.runtime.tagger.active_bank import own_bank

if TYPE_CHECKING:
    import onnx

__all__ = ["DeepStreamOptions", "deepstream_graph", "write_deepstream"]

CONFIG_FILE, TAGS_FILE, LABELS_FILE = "config_infer.txt", "tags.tsv", "labels.txt"
PARSER = Path(__file__).with_name("nvdsinfer_taidpt.cpp")
_FEATURES = ("global_features", "patch_features")


@dataclass(frozen=True)
class DeepStreamOptions:
    """How nvinfer runs a bundle.

    Attributes:
        frame_hw: height and width of nvstreammux's frames, in pixels.
        batch: frames in one run, at most; as nvstreammux's batch-size.
        features: whether scores and features are attached to frames too, as tensor meta.
    """

    frame_hw: tuple[int, int] = (1080, 1920)
    batch: int = 1
    features: bool = False


def write_deepstream(path: Path, output: Path, options: DeepStreamOptions | None = None) -> None:
    """Write the folder, and print what to do with it.

    Args:
        path: the bundle.
        output: the folder; must not exist.
        options: the defaults.
    Raises:
        InputError: the folder is there already or cannot be written, or nvinfer cannot run such a
            bundle; nothing is left half-written.
        BundleError: the bundle is damaged.
    """
    options = options or DeepStreamOptions()
    with optional_packages("writing a graph for DeepStream", "export"):
        import onnx  # noqa: F401
        import onnx_ir  # noqa: F401
    bundle = fp32_bundle(path)
    spec = _frames(bundle, options)
    vocabulary = own_bank(bundle).vocabulary
    tags = _tags(vocabulary)
    if output.exists():
        raise InputError(f"{output}: is there already; remove it, or give another -o")
    graph = deepstream_graph(load_graph(bundle.file(MODEL_FILE)), bundle, spec, options.features)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFolder(output.parent, f".{output.name}.tmp-") as temporary:
            work = temporary.path
            save_graph(graph, work / MODEL_FILE)
            (work / CONFIG_FILE).write_text(_config(output.name, spec, options), "utf-8")
            (work / TAGS_FILE).write_text(tags, "utf-8")
            (work / LABELS_FILE).write_text(_labels(vocabulary), "utf-8")
            shutil.copyfile(PARSER, work / PARSER.name)
            work.rename(output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from None
    print(f"wrote {printable(str(output))} for frames of {spec.width}x{spec.height}")
    print(f"build the parser on the device: the command is in {PARSER.name}")


def deepstream_graph(
    model: onnx.ModelProto, bundle: Bundle, spec: InputSpec, features: bool
) -> onnx.ModelProto:
    """A bundle's graph with the input that nvinfer writes, and the outputs that it reads.

    Args:
        model: the graph; not changed.
        bundle: its bundle.
        spec: the frames, with their resize.
        features: whether features stay outputs.
    """
    from onnx import inliner

    if bundle.manifest.input.baked_resize is None:
        model = prepend_resize(model, spec)
    # DeepStream 7.0 and earlier have TensorRT 8, whose parser has no model-local functions
    plain = inliner.inline_local_functions(model)
    _take_planes(plain.graph, spec)
    kept = ("scores", *(_FEATURES if features else ()))
    for output in [one for one in plain.graph.output if one.name not in kept]:
        plain.graph.output.remove(output)
    return finish_graph(plain)


def _take_planes(graph: onnx.GraphProto, spec: InputSpec) -> None:
    """Replace the cast of bytes [N, H, W, 3]: nvinfer writes float32 [N, 3, H, W]."""
    from onnx import TensorProto, helper

    for node in graph.node:
        if node.op_type == "Cast" and list(node.input) == ["frames"]:
            rows = helper.make_node(
                "Transpose", ["frames"], list(node.output), name=node.name, perm=[0, 2, 3, 1]
            )
            node.CopyFrom(rows)
            shape = ["batch", 3, spec.height, spec.width]
            planes = helper.make_tensor_value_info("frames", TensorProto.FLOAT, shape)
            graph.input[0].CopyFrom(planes)
            return
    raise InputError("this graph does not start with a cast of its frames; export it again")


def _frames(bundle: Bundle, options: DeepStreamOptions) -> InputSpec:
    """The frames that the graph will take.

    Raises:
        InputError: nvinfer cannot run such a bundle.
    """
    manifest, path = bundle.manifest, bundle.path
    if manifest.input.format == NV12:
        raise InputError(f"{path}: takes NV12 frames, and nvinfer gives RGB; export it for RGB")
    if manifest.graph.bank == "input" or manifest.graph.top_k is not None:
        raise InputError(
            f"{path}: nvinfer needs a constant bank and all scores; export it without "
            "--swappable-bank and --top-k"
        )
    if manifest.input.baked_resize is not None:
        return manifest.input
    return FrameInput(*options.frame_hw).spec(manifest.input)


def _tags(vocabulary: Vocabulary) -> str:
    lines = []
    for index, name in enumerate(vocabulary.names):
        if any(character in name for character in "\t\n\r\0"):
            raise InputError(f"the tag {name!r}: a name in {TAGS_FILE} holds no tabs or new lines")
        known = vocabulary.probability(index, 0.0) is not None  # a map from texts gives none
        row = vocabulary.maps[index] if known else None
        points = zip(row["scores"], row["probabilities"], strict=True) if row else ()
        numbers = [vocabulary.on[index], *(value for point in points for value in point)]
        lines.append("\t".join([name, *(repr(float(value)) for value in numbers)]))
    return "\n".join(lines) + "\n"


def _labels(vocabulary: Vocabulary) -> str:
    """One line: nvinfer separates the labels of an output layer by semicolons."""
    return ";".join(name.replace(";", ",") for name in vocabulary.names) + "\n"


def _config(name: str, spec: InputSpec, options: DeepStreamOptions) -> str:
    return f"""\
# {printable(name)}: tags of whole frames. nvstreammux: width={spec.width} height={spec.height}
[property]
onnx-file={MODEL_FILE}
# nvinfer builds this engine when it first runs, and reads it afterwards
model-engine-file={MODEL_FILE}_b{options.batch}_gpu0_fp32.engine
# 0: fp32, as the bundle was checked. 2: TensorRT computes in fp16 where it chooses to
network-mode=0
batch-size={options.batch}
gie-unique-id=1
process-mode=1

# the graph scales, subtracts the mean, resizes and crops
net-scale-factor=1
model-color-format=0
network-input-order=0
infer-dims=3;{spec.height};{spec.width}
maintain-aspect-ratio=0

network-type=1
output-blob-names={";".join(("scores", *(_FEATURES if options.features else ())))}
output-tensor-meta={int(options.features)}
classifier-type=tags
# not used: {TAGS_FILE} has a threshold for each tag
classifier-threshold=0
labelfile-path={LABELS_FILE}
custom-lib-path=lib{PARSER.stem}.so
parse-classifier-func-name=NvDsInferParseCustomTaidpt
"""
