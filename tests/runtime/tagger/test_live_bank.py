"""Tags that change while frames are tagged: no frame of two banks, nothing lost, events follow."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from taidpt.runtime.bank.class_bank import ClassBank, Threshold, join_banks
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.events.machine import Event, EventMachine, EventSettings
from taidpt.runtime.sources.base import Frame, Source
from taidpt.runtime.stream.stream import Stream, StreamSettings
from taidpt.runtime.tag.bank_watcher import BankWatcher
from taidpt.runtime.tag.state_file import StateFile
from taidpt.runtime.tagger.active_bank import bundle_bank
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, reference_outputs, tiny_bundle
from tests.runtime.videos import colour_frame

SPEC = TinySpec(thresholds=(1.0,), bank_as="input")
OTHER = dataclasses.replace(SPEC, names=("dog", "forklift", "hard hat"), seed=9)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("swap") / "swap.taidpt", SPEC)


@pytest.fixture
def tagger(path: Path) -> Iterator[Tagger]:
    with Tagger.load(path, device="cpu", threads=1) as loaded:
        yield loaded


def frames(count: int = 4) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_a_bundle_with_its_bank_as_input_scores_with_its_own_tags(tagger: Tagger) -> None:
    pictures = frames()
    expected = reference_outputs(SPEC, pictures)["scores"]
    np.testing.assert_allclose(tagger.tag_batch(pictures).scores, expected, atol=2e-4)
    assert tagger.names == SPEC.names


def test_a_bank_in_memory_is_swapped_without_a_copy(tagger: Tagger) -> None:
    bank = dataclasses.replace(OTHER.bank(), thresholds=(Threshold(1.0, 0.9, "calibrated"),) * 3)
    tagger.use_bank(bank)
    assert tagger.class_bank is bank  # a copy would check all rows again


def test_another_bank_brings_names_thresholds_probabilities_and_heatmaps(
    tagger: Tagger, tmp_path: Path
) -> None:
    ramp = {"scores": [-1.0, 1.0], "probabilities": [0.0, 1.0]}
    bank = dataclasses.replace(
        OTHER.bank(),
        thresholds=tuple(Threshold(on, on - 1, "calibrated") for on in (-9.0, 9.0, 0.1)),
        probabilities=(None, ramp, None),
    )
    bank.save(tmp_path / "kitchen.bank")
    before = tagger(frames(1)[0])
    tagger.use_bank(tmp_path / "kitchen.bank")
    pictures = frames()
    results = tagger.tag_batch(pictures)
    expected = reference_outputs(SPEC, pictures, OTHER.bank())["scores"]
    np.testing.assert_allclose(results.scores, expected, atol=2e-4)
    result = results[0]
    assert tagger.names == OTHER.names == result.vocabulary.names
    assert [result["dog"].on, result["forklift"].on] == [True, False]
    assert result["forklift"].probability == pytest.approx((expected[0, 1] + 1) / 2, abs=1e-3)
    row = bank.local_embeddings[2]
    heat = (result.patch_features @ row).reshape(SPEC.grid)
    np.testing.assert_allclose(result.heatmap("hard hat"), heat, atol=1e-6)
    assert before.vocabulary.names == SPEC.names  # a result keeps the tags it was scored with
    assert tagger.class_bank.thresholds == bank.thresholds


def test_one_threshold_for_all_tags_outlives_a_swap(tagger: Tagger) -> None:
    strict = tagger.with_threshold(50.0)
    strict.use_bank(OTHER.bank())
    assert strict.vocabulary.on.tolist() == [50.0] * 3
    assert tagger.names == SPEC.names  # the other tagger keeps its own bank


def test_tags_are_added_and_taken_away(tagger: Tagger) -> None:
    extra = OTHER.bank().select(["forklift"])
    tagger.change_bank(lambda now: join_banks(now, extra))
    assert tagger.bank.names == (*SPEC.names, "forklift")
    tagger.bank.remove("cat", "dog")
    assert tagger.names == (*SPEC.names[2:], "forklift")
    assert tagger.bank.current.names == tagger.names
    pictures = frames()
    parts = [reference_outputs(SPEC, pictures, s.bank())["scores"] for s in (SPEC, OTHER)]
    whole = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(tagger.tag_batch(pictures).scores, whole[:, [2, 3, 4, 6]], atol=2e-4)
    with pytest.raises(InputError, match="no tag 'lamp'"):
        tagger.bank.remove("lamp")
    with pytest.raises(InputError, match="has the tag forklift already"):
        tagger.change_bank(lambda now: join_banks(now, extra))


def _without_model(bank: ClassBank) -> ClassBank:
    return dataclasses.replace(bank, metadata={})


def _of_another_model(bank: ClassBank) -> ClassBank:
    model = {"name": "RN50", "pretrained": "openai", "weights_sha256": "a" * 64}
    return dataclasses.replace(bank, metadata={"model": model})


def _with_values(bank: ClassBank) -> ClassBank:
    return dataclasses.replace(bank, value_embeddings=bank.local_embeddings)


@pytest.mark.parametrize(
    ("bank", "message"),
    [
        (_without_model(OTHER.bank()), r"does not say which model .* of tiny random"),
        (_of_another_model(OTHER.bank()), r"made with RN50 openai .*aaaa.* of tiny random"),
        (dataclasses.replace(OTHER, dim=8).bank(), "8 dimensions, and those of .* have 12"),
        (_with_values(OTHER.bank()), "value embeddings"),
    ],
)
def test_a_bank_that_does_not_fit_is_refused_and_the_old_one_stays(
    tagger: Tagger, bank: ClassBank, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tagger.use_bank(bank)
    assert tagger.tag_batch(frames()).scores.shape == (4, 5)


def test_missing_and_damaged_files_are_named(tagger: Tagger, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.bank: cannot read the bank"):
        tagger.use_bank(tmp_path / "no.bank")
    (tmp_path / "half.bank").write_bytes(b"\x10")
    with pytest.raises(BundleError, match=r"half\.bank"):
        tagger.use_bank(tmp_path / "half.bank")
    assert tagger.names == SPEC.names


def test_a_constant_bank_says_that_it_cannot_be_swapped_and_what_to_do(tmp_path: Path) -> None:
    constant = tiny_bundle(tmp_path / "fixed.taidpt", dataclasses.replace(SPEC, bank_as="constant"))
    with Tagger.load(constant, device="cpu") as fixed:
        for change in (
            lambda: fixed.use_bank(OTHER.bank()),
            lambda: fixed.bank.add("forklift", prompts="templates"),
            lambda: fixed.bank.remove("cat"),
        ):
            with pytest.raises(InputError, match=r"constants of the graph.*--swappable-bank"):
                change()
        assert fixed.bank.current.names == SPEC.names


def test_thresholds_of_another_transform_are_not_taken_over(
    tagger: Tagger, caplog: pytest.LogCaptureFixture
) -> None:
    bank = OTHER.bank()
    other = {**bank.metadata, "scoring": {"transform": "center"}}
    with caplog.at_level(logging.WARNING, "taidpt.runtime"):
        tagger.use_bank(dataclasses.replace(bank, metadata=other))
    assert "thresholds are for scores with the transform center" in caplog.text
    assert tagger.vocabulary.on.tolist() == [1.0] * 3  # the default, a cosine of 0.25


def test_no_batch_is_scored_with_half_of_each_bank(tagger: Tagger) -> None:
    """Two banks of different size are put in turn, as fast as can be, while frames are scored."""
    pictures = frames(6)
    banks = {spec.names: spec for spec in (SPEC, OTHER)}
    expected = {
        names: reference_outputs(SPEC, pictures, spec.bank())["scores"]
        for names, spec in banks.items()
    }
    stop = threading.Event()

    def hammer() -> None:
        ready = [spec.bank() for spec in banks.values()]
        while not stop.is_set():
            for bank in ready:
                tagger.use_bank(bank)

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    seen: dict[tuple[str, ...], int] = dict.fromkeys(banks, 0)
    end = time.monotonic() + 20
    try:
        while min(seen.values()) < 20 and time.monotonic() < end:
            results = tagger.tag_batch(pictures)
            names = results.vocabulary.names
            np.testing.assert_allclose(results.scores, expected[names], atol=2e-4)
            seen[names] += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert min(seen.values()) >= 20


class Camera(Source):
    """Some frames of the colour video, live; at frame `at` something happens first."""

    name, live, threaded = "camera", True, False

    def __init__(self, first: int, last: int, at: int = -1, happens: object = None) -> None:
        self._indexes, self._at, self._happens = range(first, last), at, happens

    def frames(self) -> Iterator[Frame]:
        for number, index in enumerate(self._indexes):
            if number == self._at:
                self._happens()  # type: ignore[operator]
            yield Frame(colour_frame(index), number / 25, number, self.name)


def _all_on(spec: TinySpec, names: tuple[str, ...]) -> ClassBank:
    bank = dataclasses.replace(spec, names=names).bank()
    thresholds = tuple(Threshold(-99.0, -99.0, "default") for _ in names)
    return dataclasses.replace(bank, thresholds=thresholds)


def test_a_stream_ends_tags_that_vanish_and_begins_new_ones(tagger: Tagger) -> None:
    tagger.use_bank(_all_on(SPEC, ("cat", "dog")))
    kitchen = _all_on(OTHER, ("dog", "forklift"))
    source = Camera(0, 20, 10, lambda: tagger.use_bank(kitchen))
    stream = Stream(tagger, source, StreamSettings(overlap=False, min_on_s=0.1, keep_events=True))
    moments = list(stream)
    assert [moment.frame.index for moment in moments] == list(range(20))
    events = [(e.tag, e.kind, round(e.time_s, 3)) for m in moments for e in m.events]
    # "dog" is in both: it neither ends nor begins again
    assert events == [
        ("cat", "on", 0.0),
        ("dog", "on", 0.0),
        ("cat", "off", 0.4),
        ("forklift", "on", 0.4),
    ]
    assert moments[9].on == ("cat", "dog")
    assert moments[10].on == ("dog",)
    assert moments[19].on == ("dog", "forklift")
    spans = {span.tag: (span.start_s, span.end_s, span.open) for span in stream.timeline()}
    assert spans["cat"] == (0.0, 0.4, False)
    assert spans["dog"] == (0.0, pytest.approx(0.76), True)
    assert spans["forklift"] == (0.4, pytest.approx(0.76), True)


def test_state_of_other_tags_is_taken_by_name(tagger: Tagger, tmp_path: Path) -> None:
    """A kill, and a start with another bank: whoever was told "on" is told "off"."""
    file = tmp_path / "state.json"
    settings = StreamSettings(overlap=False, min_on_s=0.0)
    tagger.use_bank(_all_on(SPEC, ("cat", "dog")))
    first = Stream(tagger, Camera(0, 5), settings)
    StateFile(file, first, lambda: 1000.0)
    list(first)
    state = StateFile(file, first, lambda: 1000.0)
    state.save()
    tagger.use_bank(_all_on(OTHER, ("dog", "forklift")))
    second = Stream(tagger, Camera(5, 9), settings)
    again = StateFile(file, second, lambda: 1001.0)
    again.save()  # nothing was tagged yet, and nothing is forgotten
    second = Stream(tagger, Camera(5, 9), settings)
    StateFile(file, second, lambda: 1001.0)
    events = [event for moment in second for event in moment.events]
    assert [(e.tag, e.kind) for e in events] == [("cat", "off"), ("forklift", "on")]


def test_machine_state_follows_the_names(tmp_path: Path) -> None:
    def settings(on: float) -> EventSettings:
        return EventSettings(on, on, smoothing_s=1.0)

    machine = EventMachine(("a", "b"), settings(1.0))
    assert [e.tag for e in machine.update([0.0], np.array([[2.0, 4.0]]))] == ["a", "b"]
    machine.retag(("b", "c"), settings(1.5))
    machine.retag(("c", "b", "a"), settings(1.5))  # away and back between two frames
    events = machine.update([1.0], np.array([[7.0, 4.0, 2.0]]))
    assert [(e.tag, e.kind) for e in events] == [("c", "on")]
    np.testing.assert_allclose(machine.smoothed, [7.0, 4.0, 2.0])  # new: from its first score on
    machine.retag(("c",), settings(1.5))
    saved = machine.save_state()
    other = EventMachine(("c",), settings(1.5))
    other.load_state(saved)
    gone = other.update([2.0], np.array([[7.0]]))
    assert gone == machine.update([2.0], np.array([[7.0]]))
    assert gone[0] == Event(2.0, "b", "off", 4.0, 2.0, 4.0, number=4)
    assert [e.tag for e in gone] == ["b", "a"]
    with pytest.raises(InputError, match="must differ"):
        machine.retag(("c", "c"), settings(1.5))


def test_a_watched_file_is_taken_when_it_changes(
    tagger: Tagger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "site.bank"
    SPEC.bank().save(file)
    with (
        caplog.at_level(logging.INFO, "taidpt.runtime"),
        BankWatcher(tagger, file, interval_s=0.01) as watch,
    ):
        file.write_bytes(b"not a bank")
        _wait(lambda: "the previous bank stays in use" in caplog.text)
        assert tagger.names == SPEC.names
        file.unlink()
        OTHER.bank().save(file)
        _wait(lambda: "3 tags from now on" in caplog.text)
        assert tagger.names == OTHER.names
    assert not watch._thread.is_alive()


def _wait(happened: object) -> None:
    end = time.monotonic() + 20
    while not happened() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.01)
    assert happened()  # type: ignore[operator]


def test_a_bundle_bank_carries_what_the_manifest_says(path: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(path)
    ramp = {"scores": [0.0, 1.0], "probabilities": [0.0, 1.0]}
    tags = tuple(
        dataclasses.replace(tag, threshold=Threshold(7.0, 6.0, "calibrated"), probability=ramp)
        for tag in bundle.manifest.tags
    )
    calibrated = dataclasses.replace(
        bundle, manifest=dataclasses.replace(bundle.manifest, tags=tags)
    )
    bundle_bank(calibrated).save(tmp_path / "site.bank")
    bank = ClassBank.load(tmp_path / "site.bank")
    assert {t.source for t in bank.thresholds} == {"calibrated"}
    assert bank.probabilities == (ramp,) * 5
    assert bank.metadata["model"]["weights_sha256"] == "0" * 64
    assert bank.metadata["scoring"]["transform"] == "none"
