"""Tags that change while the site runs: thresholds, names, banks, history, undo."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.sites.config import BundleConfig, CameraConfig, RuleConfig
from tests.runtime.serve.server import Server, running
from tests.runtime.serve.test_api import picture_file
from tests.runtime.sinks.senders import wait_for
from tests.runtime.tiny import NAMES, TinySpec, tiny_bundle

OTHER = TinySpec(names=("forklift", "hard hat"), seed=9, bank_as="input", thresholds=(-9.0,))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edited")


@pytest.fixture(scope="module")
def edited(swappable: Path, video_path: Path, data: Path) -> Iterator[Server]:
    with running(swappable, data, str(video_path), max_fps=10.0) as server:
        yield server


@pytest.fixture(autouse=True)
def undone(edited: Server) -> Iterator[None]:
    """Each test leaves the tags as they were."""
    yield
    while edited.ask("/v1/bank").json["edits"]:
        assert edited.ask("/v1/bank/undo", "POST").status == 200
    assert [tag["name"] for tag in edited.ask("/v1/tags").json["tags"]] == list(NAMES)


def file_of(bank: ClassBank, folder: Path) -> bytes:
    bank.save(folder / "a.bank")
    return (folder / "a.bank").read_bytes()


def upload(server: Server, path: str, method: str, data: bytes) -> int:
    return server.ask(path, method, data, Content_Type="application/octet-stream").status


def test_a_threshold_is_set_told_to_every_page_kept_and_undone(edited: Server) -> None:
    with edited.open("/v1/stream") as answer:
        messages = edited.messages(answer)
        next(messages)
        bank = edited.ask("/v1/tags?tag=dog", "PATCH", {"on": -3.0}).json
        assert bank["edits"][0]["what"] == "threshold of dog to -3"
        assert any(name == "bank" for name, _, _ in messages)
    (dog,) = edited.ask("/v1/tags?search=DOG&limit=1").json["tags"]
    assert dog == {
        "name": "dog",
        "on": -3.0,
        "off": pytest.approx(-3.1),  # as far below as before
        "source": "set by hand",
    }
    camera = edited.site.cameras["cam1"]
    assert wait_for(lambda: "dog" in camera.latest.on)
    undone = edited.ask("/v1/bank/undo", "POST").json
    assert undone["edits"] == []
    assert edited.ask("/v1/tags").json["tags"][1]["on"] == 1.0
    refused = edited.ask("/v1/bank/undo", "POST")
    assert (refused.status, refused.json) == (409, {"error": "there is no edit to undo"})


def test_tags_are_renamed_removed_and_joined_and_no_frame_is_lost(
    edited: Server, tmp_path: Path
) -> None:
    camera = edited.site.cameras["cam1"]
    dropped = edited.group.dropped("cam1")
    assert edited.ask("/v1/tags?tag=caf%C3%A9", "PATCH", {"name": "bar / café"}).status == 200
    assert edited.ask("/v1/tags?tag=hot%20dog", "DELETE").status == 200
    assert upload(edited, "/v1/tags", "POST", file_of(OTHER.bank(), tmp_path)) == 200
    names = ["cat", "dog", "traffic light", "bar / café", "forklift", "hard hat"]
    assert [tag["name"] for tag in edited.ask("/v1/tags").json["tags"]] == names
    assert wait_for(lambda: "forklift" in camera.latest.on)
    assert edited.ask("/v1/cameras/cam1/heatmap?tag=bar%20/%20caf%C3%A9").status == 200
    assert edited.group.dropped("cam1") == dropped
    saved = edited.ask("/v1/bank/file")
    (tmp_path / "saved.bank").write_bytes(saved.body)
    assert ClassBank.load(tmp_path / "saved.bank").names == tuple(names)
    assert len(edited.ask("/v1/bank").json["edits"]) == 3


def test_a_whole_bank_is_exchanged(edited: Server, tmp_path: Path) -> None:
    assert upload(edited, "/v1/bank/file", "PUT", file_of(OTHER.bank(), tmp_path)) == 200
    assert edited.group.tagger.names == OTHER.names
    scores = edited.ask("/v1/tags/scores?tag=forklift&camera=cam1")
    assert wait_for(lambda: edited.ask("/v1/tags/scores?tag=forklift").json["seconds"] > 0)
    assert scores.status == 200
    quantiles = edited.ask("/v1/tags/scores?tag=forklift").json["quantiles"]
    assert len(quantiles) == 101
    assert quantiles == sorted(quantiles)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", "/v1/tags?tag=none", {"on": 1}, 404),
        ("PATCH", "/v1/tags", {"on": 1}, 400),
        ("PATCH", "/v1/tags?tag=dog", {"on": "high"}, 400),
        ("PATCH", "/v1/tags?tag=dog", {"off": 1}, 400),
        ("PATCH", "/v1/tags?tag=dog", {"on": 1, "off": 2}, 409),
        ("PATCH", "/v1/tags?tag=dog", {"name": "cat"}, 409),
        ("PATCH", "/v1/tags?tag=dog", {"name": " \n"}, 400),
        ("PATCH", "/v1/tags?tag=dog", [], 400),
        ("POST", "/v1/tags", {"names": ["cat"]}, 409),
        ("POST", "/v1/tags", {"names": []}, 400),
        ("PUT", "/v1/bank/file", b"not a bank", 422),
        ("GET", "/v1/tags/scores?tag=dog&camera=none", None, 404),
        ("DELETE", "/v1/tags?tag=none", None, 404),
    ],
)
def test_an_edit_that_cannot_be_gives_one_line_and_changes_nothing(
    method: str, path: str, body: object, status: int, edited: Server
) -> None:
    headers = {"Content_Type": "application/octet-stream"} if isinstance(body, bytes) else {}
    answer = edited.ask(path, method, body, **headers)
    assert answer.status == status
    assert len(answer.json["error"].splitlines()) == 1
    assert edited.ask("/v1/bank").json["edits"] == []


def test_a_bank_of_another_model_is_refused(edited: Server, tmp_path: Path) -> None:
    bank = OTHER.bank()
    model = {**bank.metadata["model"], "weights_sha256": "f" * 64}
    other = dataclasses.replace(bank, metadata={**bank.metadata, "model": model})
    for path, method in (("/v1/bank/file", "PUT"), ("/v1/tags", "POST")):
        assert upload(edited, path, method, file_of(other, tmp_path)) == 409


def test_edits_outlive_the_process_and_another_model_sets_them_aside(
    swappable: Path, video_path: Path, tmp_path: Path
) -> None:
    with running(swappable, tmp_path, str(video_path)) as server:
        server.ask("/v1/tags?tag=dog", "PATCH", {"name": "hound"})
        server.ask("/v1/tags?tag=cat", "DELETE")
    with running(swappable, tmp_path, str(video_path)) as server:
        assert server.group.tagger.names == ("hound", "traffic light", "hot dog", "café")
        server.ask("/v1/bank/undo", "POST")
        assert server.group.tagger.names[:2] == ("cat", "hound")
    for file in (tmp_path / "banks").glob("*.bank"):
        bank = ClassBank.load(file)
        model = {**bank.metadata["model"], "weights_sha256": "f" * 64}
        dataclasses.replace(bank, metadata={**bank.metadata, "model": model}).save(file)
    with running(swappable, tmp_path, str(video_path)) as server:
        assert server.group.tagger.names == NAMES
        assert server.ask("/v1/bank").json["edits"] == []


def test_a_constant_bank_takes_thresholds_and_says_how_to_export_one_that_takes_names(
    bundle_path: Path, video_path: Path, tmp_path: Path
) -> None:
    with running(bundle_path, tmp_path, str(video_path)) as server:
        bank = server.ask("/v1/bank").json
        assert not bank["can_add_names"]
        assert "--swappable-bank" in bank["why_not"]
        for answer in (
            server.ask("/v1/tags", "POST", {"names": ["forklift"]}),
            server.ask("/v1/tags?tag=dog", "DELETE"),
            server.ask("/v1/tags?tag=dog", "PATCH", {"name": "hound"}),
        ):
            assert answer.status == 409
            assert "--swappable-bank" in answer.json["error"]
        assert server.ask("/v1/tags?tag=dog", "PATCH", {"on": -5.0}).status == 200
        assert wait_for(lambda: "dog" in server.site.cameras["cam1"].latest.on)


def test_a_tag_is_learned_from_example_pictures(edited: Server) -> None:
    """What it has learned is tested in tests/runtime/sites."""
    green = [base64.b64encode(picture_file(index)).decode() for index in (25, 30, 49)]
    body = {"name": "lawn", "pictures": green}
    assert wait_for(lambda: edited.site.cameras["cam1"].latest.frame.image[50, 100, 0] > 150)  # red
    assert edited.ask("/v1/tags/examples", "POST", body).status == 200
    (tag,) = edited.ask("/v1/tags?search=lawn").json["tags"]
    assert tag["source"] == "from 3 examples"
    assert tag["on"] > tag["off"]
    assert edited.ask("/v1/tags/examples", "POST", body).status == 409  # there is one already
    body = {"name": "x", "pictures": ["bm90IGEgcGljdHVyZQ=="]}
    assert edited.ask("/v1/tags/examples", "POST", body).status == 422


def test_cameras_of_several_bundles_have_their_own_tags(
    swappable: Path, video_path: Path, tmp_path: Path
) -> None:
    tiny_bundle(tmp_path / "dock.taidpt", OTHER)
    bundles = (
        BundleConfig("street", str(swappable)),
        BundleConfig("dock", f"{tmp_path}/dock.taidpt"),
    )
    cameras = tuple(
        CameraConfig(name, str(video_path), bundle=bundle)
        for name, bundle in (("yard", "dock"), ("door", "street"), ("gate", "dock"))
    )
    rule = RuleConfig("truck", "forklift", camera="yard")
    options = {"bundles": bundles, "rules": (rule,), "max_fps": 10.0, "min_on": 0.0}
    with running(swappable, tmp_path / "data", cameras=cameras, **options) as server:
        listed = server.ask("/v1/bundles").json["bundles"]
        assert [(one["id"], one["tags"], one["cameras"]) for one in listed] == [
            ("street", 5, ["door"]),
            ("dock", 2, ["yard", "gate"]),
        ]
        for camera, bundle, names in (("yard", "dock", OTHER.names), ("door", "street", NAMES)):
            assert server.ask(f"/v1/cameras/{camera}").json["bundle"] == bundle
            tags = server.ask(f"/v1/cameras/{camera}/tags").json["tags"]
            assert sorted(tag["name"] for tag in tags) == sorted(names)
            assert server.ask(f"/v1/cameras/{camera}/heatmap?tag={names[0]}").status == 200
        assert wait_for(lambda: server.ask("/v1/events?tag=truck").json["events"] != [])
        for bundle, status in (("", 400), ("?bundle=none", 404), ("?bundle=dock", 200)):
            assert server.ask(f"/v1/bank{bundle}").status == status
            upload = server.ask(
                f"/v1/tag{bundle}", "POST", picture_file(), Content_Type="image/png"
            )
            assert upload.status == status
        assert server.ask("/v1/tags?tag=forklift&bundle=street", "DELETE").status == 404
        answer = server.ask("/v1/tags?tag=forklift&bundle=dock", "PATCH", {"name": "truck"})
        assert [edit["what"] for edit in answer.json["edits"]] == ["renamed forklift to truck"]
        assert server.ask("/v1/bank?bundle=street").json["edits"] == []
        assert "truck" in server.site.groups["dock"].tagger.names
        assert (tmp_path / "data" / "banks" / "dock" / "edits.json").exists()
        text = server.ask("/metrics").body.decode()
        assert 'taidpt_tags{bundle="dock"} 2.0' in text
