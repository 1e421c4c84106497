"""Runs damaged graphs in a process of its own: `-m tests.hostile.graph_runner FOLDER BATCH N`.

A library may end the process at a damaged graph. So each input is announced before it is used, and
each outcome is printed after it: "ok", or the error in one line. Nothing else may be printed.
"""

from __future__ import annotations

import random
import resource
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from taidpt.runtime.bundle.bundle import BANK_FILE, MODEL_FILE, BundleWriter
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.tagger.tagger import Tagger
from tests.hostile.damage import damage_bytes, require_one_line
from tests.runtime.tiny import TinySpec, tiny_graph, tiny_manifest

FRAMES = np.zeros((2, 16, 16, 3), np.uint8)
MEMORY = 8 << 30  # bytes: an input that asks for more gets an error, not this machine's memory
SPECS = (TinySpec(), TinySpec(top_k=2), TinySpec(bank_as="input"))
OPERATORS = ("Identity", "Transpose", "Sqrt", "Shape", "ReduceSum", "NonZero", "Nonsense", "Size")
NUMBERS = (0, -1, 1, 2, 3, 2**31 - 1, 2**31, 10**9, 2**62, -(2**63))


def damage_graph(model: onnx.ModelProto, chance: random.Random) -> None:
    """One change that a graph can hold and still be an ONNX file."""
    graph = model.graph
    node = chance.choice(graph.node)
    value = chance.choice([*graph.input, *graph.output])
    weight = chance.choice(graph.initializer)
    kind = chance.randrange(14)
    if kind == 0:
        node.op_type = chance.choice(OPERATORS)
    elif kind == 1:
        graph.node.remove(node)
    elif kind == 2:
        graph.initializer.remove(weight)
    elif kind == 3 and node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(graph.node).output[0]
    elif kind == 4:
        value.type.tensor_type.elem_type = chance.randrange(0, 24)
    elif kind == 5:
        sizes = value.type.tensor_type.shape.dim
        size = chance.choice(sizes) if sizes else sizes.add()
        size.dim_value = chance.choice(NUMBERS)
    elif kind == 6:
        value.type.tensor_type.ClearField("shape")
    elif kind == 7:
        value.type.tensor_type.shape.dim.add().dim_param = "more"
    elif kind == 8:
        value.name = chance.choice(("", "scores", "another", "a\nb\x1b[31m"))
    elif kind == 9:
        graph.input.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, ["N"]))
    elif kind == 10:
        values = np.full(chance.choice(((), (1,), (3, 2))), chance.choice(NUMBERS))
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    elif kind == 11:
        weight.raw_data = np.full(len(weight.raw_data) // 4, np.inf, np.float32).tobytes()
    elif kind == 12:
        del weight.dims[:]
        weight.dims.extend(chance.choice(NUMBERS) for _ in range(chance.randrange(4)))
    else:
        name = chance.choice(("axis", "perm", "axes", "keepdims", "to", "strides"))
        number = chance.choice(NUMBERS[:-1])
        node.attribute.append(helper.make_attribute(name, chance.choice((number, [number] * 3))))


def damaged(batch: str, number: int) -> tuple[TinySpec, bytes]:
    chance = random.Random(f"graph {batch} {number}")
    spec = chance.choice(SPECS)
    model = tiny_graph(spec, spec.bank())
    for _ in range(chance.choice((1, 1, 2, 3))):
        damage_graph(model, chance)
    data = model.SerializeToString()
    return spec, damage_bytes(data, chance) if chance.random() < 0.3 else data


def use(path: Path) -> None:
    with Tagger.load(path, device="cpu") as tagger:
        for _ in range(2):
            for result in tagger.tag_batch(FRAMES):
                assert len(result.tags) == len(tagger.names)
                assert np.isfinite(result.scores).all()
                assert result.heatmap(tagger.names[0]).shape == (4, 4)


def main(folder: Path, batch: str, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    path = folder / "b.taidpt"
    for number in range(count):
        spec, data = damaged(batch, number)
        with BundleWriter(path) as writer:
            writer.write(MODEL_FILE, data)
            spec.bank().save(writer.path(BANK_FILE))
            writer.commit(tiny_manifest(spec, spec.bank()))
        print(f"input {number}", flush=True)
        try:
            use(path)
            print("ok", flush=True)
        except TaidptError as error:
            require_one_line(error)
            print(f"refused: {error}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
