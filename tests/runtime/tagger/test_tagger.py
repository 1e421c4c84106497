"""The tagger on real sessions: values, batches, threads, errors."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.bundle.bundle import BANK_FILE, MODEL_FILE, Bundle, BundleWriter
from taidpt.runtime.errors import BackendError, BundleError, InputError
from taidpt.runtime.results import Tag, TagResult, Vocabulary
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import (
    NAMES,
    TinySpec,
    reference_outputs,
    tiny_bundle,
    tiny_graph,
    tiny_manifest,
)


def frames(count: int = 3, height: int = 16, width: int = 16, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_values_equal_a_plain_computation(tagger: Tagger) -> None:
    batch = tagger.tag_batch(frames())
    expected = reference_outputs(TinySpec(), frames())
    np.testing.assert_allclose(batch.scores, expected["scores"], atol=1e-5)
    np.testing.assert_allclose(batch[1].patch_features, expected["patch_features"][1], atol=1e-5)
    np.testing.assert_allclose(batch[2].global_features, expected["global_features"][2], atol=1e-5)
    rows = TinySpec().bank().local_embeddings
    heat = (expected["patch_features"][1] @ rows[NAMES.index("dog")]).reshape(4, 4)
    np.testing.assert_allclose(batch[1].heatmap("dog"), heat, atol=1e-5)
    assert batch[1].heatmap("dog").dtype == np.float32


def test_a_batch_in_one_array_is_for_tag_batch(tagger: Tagger) -> None:
    """So that the type of `tagger(frame)` is known: TagResult."""
    with pytest.raises(InputError, match=r"got shape \[3, 16, 16, 3\]; for a batch use tagger"):
        tagger(frames())


def test_blue_first_is_said_by_name(tagger: Tagger) -> None:
    small, large = frames()[0], frames(1, 40, 30)[0]
    for rgb in (small, large):
        expected = tagger(rgb).scores
        np.testing.assert_allclose(tagger(rgb[..., ::-1], bgr=True).scores, expected, atol=1e-6)
        listed = tagger([rgb[..., ::-1], rgb[..., ::-1]], bgr=True)
        np.testing.assert_allclose(listed.scores, [expected, expected], atol=1e-5)
        assert np.abs(tagger(rgb, bgr=True).scores - expected).max() > 1e-3
    alpha = np.dstack([small, np.full((16, 16), 255, np.uint8)])
    np.testing.assert_allclose(
        tagger(alpha[..., [2, 1, 0, 3]], bgr=True).scores, tagger(alpha).scores, atol=1e-6
    )


def test_paths_and_pillows_pictures_are_frames(tagger: Tagger, tmp_path: Path) -> None:
    rgb = frames(1, 40, 30)[0]
    expected = tagger(rgb).scores
    picture = Image.fromarray(rgb)
    picture.save(tmp_path / "a.png")
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held on its side: to be turned by 270 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    ways = [tmp_path / "a.png", str(tmp_path / "a.png"), picture, tmp_path / "turned.png"]
    with Image.open(tmp_path / "turned.png") as opened:
        for frame in (*ways, opened):
            np.testing.assert_array_equal(tagger(frame).scores, expected)
            np.testing.assert_allclose(tagger([frame, rgb])[0].scores, expected, atol=1e-6)
            with pytest.raises(InputError, match="read as RGB"):
                tagger(frame, bgr=True)
    palette = picture.convert("P")
    expected = tagger(np.asarray(palette.convert("RGB"))).scores
    np.testing.assert_array_equal(tagger(palette).scores, expected)
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        tagger(tmp_path / "none.png")


def test_a_result_is_read_by_names(tagger: Tagger) -> None:
    result = tagger.with_threshold(float(np.median(tagger(frames()[0]).scores)))(frames()[0])
    assert 0 < len(result.on_tags) < len(NAMES)
    assert list(result) == list(result.on_tags)
    for name in NAMES:
        assert (name in result) == result[name].on
    with pytest.raises(InputError, match="did you mean"):
        "trafic light" in result  # noqa: B015


def test_one_frame_a_list_and_an_array_agree(tagger: Tagger) -> None:
    several = tagger.tag_batch(frames())
    assert len(several) == 3
    assert several.scores.shape == several.on.shape == (3, 5)
    np.testing.assert_array_equal(several.on[1], several[1].on)
    assert several.to_dict(top=2)["frames"][2] == several[2].to_dict(top=2)
    np.testing.assert_array_equal(tagger(list(frames())).scores, several.scores)
    np.testing.assert_array_equal(tagger.tag_batch(tuple(frames())).scores, several.scores)
    for frame, result in zip(frames(), several, strict=True):
        one = tagger(frame)
        assert isinstance(one, TagResult)
        np.testing.assert_allclose(one.scores, result.scores, atol=1e-6)
    assert len(several[1:]) == 2
    np.testing.assert_array_equal(several[1:].scores, several.scores[1:])


def test_tags_are_sorted_and_on_follows_the_threshold(tmp_path: Path) -> None:
    spec = TinySpec(thresholds=(0.5, 9.0))
    with Tagger.load(tiny_bundle(tmp_path / "t.taidpt", spec), device="cpu") as tagger:
        result = tagger(frames()[0])
        scores = [tag.score for tag in result.tags]
        assert scores == sorted(scores, reverse=True)
        assert {tag.name for tag in result.tags} == set(NAMES)
        for tag in result.tags:
            index = NAMES.index(tag.name)
            assert tag.on == (tag.score >= (0.5, 9.0)[index % 2])
            assert tag.on == result.on[index]
            assert tag.probability is None
        assert result["dog"] == next(tag for tag in result.tags if tag.name == "dog")
        assert result.to_dict(top=2)["tags"] == [tag.to_dict() for tag in result.tags[:2]]
        assert json.loads(json.dumps(result.to_dict()))["tags"][0]["name"] == result.tags[0].name
        assert "best: " + result.tags[0].name in repr(result)
        everything = tagger.with_threshold(-99.0)
        assert all(tag.on for tag in everything(frames()[0]).tags)
        assert not all(tag.on for tag in tagger(frames()[0]).tags)


def test_frames_of_any_size(tagger: Tagger) -> None:
    big = frames(1, 90, 123)[0]
    batch = tagger([big, frames()[0], big[:, :, 0]])
    np.testing.assert_allclose(batch[0].scores, tagger(big).scores, atol=1e-6)
    np.testing.assert_allclose(batch[1].scores, tagger(frames()[0]).scores, atol=1e-6)


def test_an_unknown_tag_names_close_ones(tagger: Tagger) -> None:
    with pytest.raises(InputError, match="no tag 'trafic light'; did you mean traffic"):
        tagger(frames()[0]).heatmap("trafic light")
    with pytest.raises(InputError, match="no tag 'xyz'; tags: cat, dog"):
        tagger(frames()[0])["xyz"]


def test_wrong_frames(tagger: Tagger) -> None:
    with pytest.raises(InputError, match="float64"):
        tagger(np.zeros((16, 16, 3)))
    with pytest.raises(InputError, match="at least one frame"):
        tagger([])
    with pytest.raises(InputError, match="expected a NumPy array"):
        tagger(3)  # type: ignore[call-overload]


def test_many_threads_give_what_one_gives(tagger: Tagger) -> None:
    pictures = frames(40, 30, 40)
    alone = [tagger(picture).scores for picture in pictures]
    found: dict[int, np.ndarray] = {}

    def work(start: int) -> None:
        for index in range(start, len(pictures), 4):
            found[index] = tagger(pictures[index]).scores

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(pictures)
    for index, scores in found.items():
        np.testing.assert_array_equal(scores, alone[index])


def test_devices_that_are_not_here_fail_and_auto_says_what_it_took(
    bundle_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import onnxruntime

    available = onnxruntime.get_available_providers()
    with caplog.at_level(logging.DEBUG, "taidpt.runtime"), Tagger.load(bundle_path) as tagger:
        assert tagger.device.name == tagger.backend.device
        assert tagger.device.name in ("cpu", "cuda")
    assert "device auto: not tensorrt-rtx: the bundle has no such engine" in caplog.text
    assert json.loads(json.dumps(tagger.device.to_dict()))["name"] == tagger.device.name
    assert tagger.device.passed_over["tensorrt-rtx"] == "the bundle has no such engine"
    if "CUDAExecutionProvider" not in available:
        with pytest.raises(BackendError, match="no CUDAExecutionProvider, it has"):
            Tagger.load(bundle_path, device="cuda")
    if "TensorrtExecutionProvider" not in available:
        with pytest.raises(BackendError, match="no TensorrtExecutionProvider"):
            Tagger.load(bundle_path, device="ort-tensorrt")
    with pytest.raises(BackendError, match="no NonsenseProvider"):
        Tagger.load(bundle_path, providers=["NonsenseProvider"])
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        Tagger.load(bundle_path, device="tpu")
    with pytest.raises(InputError, match="threads should be at least 1"):
        Tagger.load(bundle_path, threads=0)
    with Tagger.load(bundle_path, providers=[("CPUExecutionProvider", {})]) as tagger:
        assert tagger.backend.device == "cpu"


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        ({"device": "cuda"}, {"use_tf32": "0"}),
        ({"providers": ["CUDAExecutionProvider"]}, {"use_tf32": "0"}),
        (
            {"providers": [("CUDAExecutionProvider", {"use_tf32": "1", "device_id": 1})]},
            {"use_tf32": "1", "device_id": 1},
        ),
    ],
    ids=["device", "provider", "provider with options"],
)
def test_cuda_provider_multiplies_fp32_in_fp32(
    bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    choice: dict[str, Any],
    options: dict[str, Any],
) -> None:
    import onnxruntime

    started: list[Any] = []

    def session(*arguments: Any, providers: list[Any], **others: Any) -> None:
        started.extend(providers)
        raise RuntimeError("no GPU here")

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(BundleError, match="no GPU here"):
        Tagger.load(bundle_path, **choice)
    assert started[0] == ("CUDAExecutionProvider", options)


def write_bundle(path: Path, graph: bytes, spec: TinySpec) -> Path:
    with BundleWriter(path) as writer:
        writer.write(MODEL_FILE, graph)
        spec.bank().save(writer.path(BANK_FILE))
        writer.commit(tiny_manifest(spec, spec.bank()))
    return path


def test_graphs_that_do_not_fit_their_manifest(tmp_path: Path) -> None:
    spec = TinySpec()
    path = write_bundle(tmp_path / "a.taidpt", b"not a graph", spec)
    with pytest.raises(BundleError, match=r"model\.onnx: not a readable graph"):
        Tagger.load(path, device="cpu")
    unknown = tiny_graph(spec, spec.bank())
    unknown.graph.node[0].op_type = "NoSuchOperator"
    path = write_bundle(tmp_path / "u.taidpt", unknown.SerializeToString(), spec)
    with pytest.raises(BundleError, match=r"model\.onnx: onnxruntime .* refuses the graph"):
        Tagger.load(path, device="cpu")
    other = TinySpec(names=("one", "two"))
    path = write_bundle(
        tmp_path / "b.taidpt", tiny_graph(other, other.bank()).SerializeToString(), spec
    )
    with pytest.raises(
        BundleError,
        match=r"'scores' is float32 \[N, 2\], the manifest",
    ):
        Tagger.load(path, device="cpu")
    wide = TinySpec(width=32)
    path = write_bundle(
        tmp_path / "c.taidpt", tiny_graph(wide, spec.bank()).SerializeToString(), spec
    )
    with pytest.raises(BundleError, match=r"16, 32, 3\], the manifest says uint8 \[N, 16, 16, 3\]"):
        Tagger.load(path, device="cpu")


def test_scores_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    from onnx import numpy_helper

    spec = TinySpec()
    graph = tiny_graph(spec, spec.bank())
    for weight in graph.graph.initializer:
        if weight.name == "bias":
            broken = np.array([0, np.inf, 0, 0, 0], np.float32)
            weight.CopyFrom(numpy_helper.from_array(broken, "bias"))
    path = write_bundle(tmp_path / "n.taidpt", graph.SerializeToString(), spec)
    with (
        Tagger.load(path, device="cpu") as tagger,
        pytest.raises(BackendError, match="not finite; export with a higher precision"),
    ):
        tagger(frames()[0])


def test_a_closed_tagger_says_so(bundle_path: Path) -> None:
    import onnxruntime

    tagger = Tagger.load(bundle_path, device="cpu")
    version = ".".join(onnxruntime.__version__.split(".")[:2])
    assert repr(tagger) == f"Tagger('{bundle_path}', 5 tags, cpu (ONNX Runtime {version}))"
    tagger.close()
    with pytest.raises(BackendError, match="closed; load the bundle again"):
        tagger(frames()[0])


def test_probabilities_come_from_the_map() -> None:
    points = {"scores": [0.0, 1.0, 3.0], "probabilities": [0.1, 0.5, 0.9]}
    thresholds = (Threshold(1, 1, "calibrated"), Threshold(1, 1, "default"))
    words = Vocabulary(("a", "b"), thresholds, (points, None), (1, 1))
    scores = np.array([2.0, 2.0], np.float32)
    result = TagResult(scores, np.zeros((1, 2), np.float32), None, words)
    assert result["a"] == Tag("a", 2.0, True, pytest.approx(0.7), False, "calibrated")
    assert result["b"].probability is None
    assert result["a"].uncertain
    assert not result["b"].uncertain
    assert not Tag("a", 3.0, True, 0.9).uncertain
    marked = [tag.to_dict()["uncertain"] for tag in (result["a"], result["b"])]
    assert marked == [True, False]
    with pytest.raises(InputError, match="no class bank"):
        result.heatmap("a")
    with pytest.raises(InputError, match="rising scores"):
        Vocabulary(("a", "b"), thresholds, (points, {**points, "scores": [3, 2, 1]}), (1, 1))


def test_a_bundle_replaced_while_running_is_not_mixed_in(tmp_path: Path) -> None:
    path = tiny_bundle(tmp_path / "t.taidpt")
    with Tagger.load(path, device="cpu") as tagger:
        before = tagger(frames()[0])
        tiny_bundle(path, TinySpec(seed=8))
        after = tagger(frames()[0])
        np.testing.assert_array_equal(before.scores, after.scores)
        np.testing.assert_array_equal(before.heatmap("dog"), after.heatmap("dog"))
        rows = TinySpec().bank().local_embeddings
        heat = (before.patch_features @ rows[NAMES.index("dog")]).reshape(4, 4)
        np.testing.assert_allclose(after.heatmap("dog"), heat, atol=1e-6)


def test_bank_of_the_bundle_is_the_one_saved(tagger: Tagger) -> None:
    bank = tagger.bundle.bank
    assert isinstance(bank, ClassBank)
    np.testing.assert_array_equal(bank.local_embeddings, TinySpec().bank().local_embeddings)


def test_the_tensorrt_providers_options_keep_its_engines(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taidpt.runtime.backends.onnx_runtime import tensorrt_options

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = tensorrt_options(Bundle.load(bundle_path))
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_relative_to(tmp_path / "taidpt")
    assert folder.stat().st_mode & 0o077 == 0
    assert options["trt_profile_max_shapes"] == "frames:8x16x16x3"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    with pytest.raises(InputError, match="/dev/null"):
        tensorrt_options(Bundle.load(bundle_path))
