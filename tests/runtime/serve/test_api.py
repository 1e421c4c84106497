"""The API over HTTP: cameras, tags, pictures, events, uploads."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from taidpt.runtime.sinks.background import BackgroundSender
from taidpt.runtime.sites.config import ClipConfig, RuleConfig, ZoneConfig
from tests.runtime.serve.server import Server, running
from tests.runtime.sinks.senders import wait_for
from tests.runtime.videos import colour_frame


def picture_file(index: int = 0, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(colour_frame(index)).save(stream, kind)
    return stream.getvalue()


def test_cameras_are_described_and_give_pictures(server: Server, video_path: Path) -> None:
    cameras = server.ask("/v1/cameras").json["cameras"]
    assert [camera["id"] for camera in cameras] == ["cam1", "cam2"]
    assert cameras[0]["address"] == str(video_path)
    assert cameras[0]["state"] == "running"
    assert cameras[0]["tagged"] > 0
    assert server.ask("/v1/cameras/cam2").json["id"] == "cam2"
    for path in ("snapshot", "heatmap?tag=hot%20dog"):
        answer = server.ask(f"/v1/cameras/cam1/{path}")
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.body)).size == (128, 96)


def test_tags_of_a_camera_are_those_of_its_bundle(server: Server) -> None:
    tags = server.ask("/v1/cameras/cam1/tags?top=3").json["tags"]
    assert {tag["name"] for tag in tags} <= set(server.group.tagger.names)
    assert len(tags) >= 3
    assert all(tag["threshold"] == 1.0 for tag in tags)
    assert [tag["score"] for tag in tags[:3]] == sorted(
        (t["score"] for t in tags[:3]), reverse=True
    )


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/cameras/none", 404),
        ("/v1/cameras/none/snapshot", 404),
        ("/v1/cameras/cam1/heatmap", 400),
        ("/v1/cameras/cam1/heatmap?tag=none", 404),
        ("/v1/cameras/cam1/tags?top=0", 400),
        ("/v1/cameras/cam1/tags?top=many", 400),
        ("/v1/cameras/cam1/tags?bottom=1", 400),
        ("/v1/events?limit=1&limit=2", 400),
        ("/v1/events?since=nan", 400),
        ("/v1/events/0", 400),
        ("/v1/events/123456789", 404),
        ("/v1/nothing", 404),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
    ],
)
def test_a_wrong_address_gives_one_line(path: str, status: int, server: Server) -> None:
    answer = server.ask(path)
    assert answer.status == status
    assert len(answer.json["error"].splitlines()) == 1


def test_events_come_in_pages_with_pictures(server: Server) -> None:
    assert wait_for(lambda: len(server.ask("/v1/events?limit=5").json["events"]) == 5)
    first = server.ask("/v1/events?limit=2").json
    second = server.ask(f"/v1/events?limit=2&before={first['next']}").json
    numbers = [event["id"] for event in first["events"] + second["events"]]
    assert numbers == list(range(numbers[0], numbers[0] - 4, -1))
    event = server.ask("/v1/events/1").json
    assert (event["kind"], event["has_picture"]) == ("on", True)
    answer = server.ask("/v1/events/1/snapshot")
    assert Image.open(io.BytesIO(answer.body)).size == (128, 96)
    query = f"tag={event['tag'].replace(' ', '%20')}&camera={event['camera']}&until={event['at']}"
    assert server.ask(f"/v1/events?{query}").json["events"] == [event]
    assert server.ask("/v1/events?since=9e9").json == {"events": [], "next": None}


def test_uploaded_pictures_are_tagged_as_the_tagger_does(server: Server) -> None:
    expected = server.group.tagger.tag(colour_frame(0))
    answer = server.ask("/v1/tag?top=5", "POST", picture_file(), Content_Type="image/png")
    (tagged,) = answer.json["pictures"]
    assert [tag["name"] for tag in tagged["tags"]] == [tag.name for tag in expected.tags]
    np.testing.assert_allclose([t["score"] for t in tagged["tags"]], np.sort(expected.scores)[::-1])
    batch = {"pictures": [base64.b64encode(picture_file(i)).decode() for i in (0, 30)]}
    both = server.ask("/v1/tag?top=5", "POST", batch).json["pictures"]
    assert both[0]["tags"][0]["name"] == tagged["tags"][0]["name"]
    assert both[0] != both[1]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "image/png", 400),
        (b"not a picture", "image/png", 422),
        (b"{", "application/json", 400),
        (b'{"pictures": []}', "application/json", 400),
        (b'{"pictures": ["?"]}', "application/json", 422),
        (b'{"picture": ["aGk="]}', "application/json", 400),
        (b"x", "text/plain", 415),
    ],
)
def test_a_bad_upload_gives_one_line(body: bytes, kind: str, status: int, server: Server) -> None:
    answer = server.ask("/v1/tag", "POST", body, Content_Type=kind)
    assert answer.status == status
    assert len(answer.json["error"].splitlines()) == 1


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(server: Server) -> None:
    stream = io.BytesIO()
    Image.new("1", (9000, 9000)).save(stream, "PNG")
    answer = server.ask("/v1/tag", "POST", stream.getvalue(), Content_Type="image/png")
    assert answer.status == 422
    assert "50 million pixels" in answer.json["error"]


def test_another_method_is_refused(server: Server) -> None:
    answer = server.ask("/v1/events", "DELETE")
    assert answer.status == 405
    assert "GET" in answer.headers["Allow"]


def test_a_rule_of_a_zone_fires_a_webhook_and_is_an_event(
    swappable: Path, video_path: Path, tmp_path: Path
) -> None:
    zone = ZoneConfig("gate", "cam1", ((0, 0), (1, 0), (1, 1), (0, 1)), ("dog",))
    blind = ZoneConfig("blind", "cam1", ((0, 0), (0.01, 0), (0, 0.01)))
    rule = RuleConfig("dog-alone", "dog", zone="gate", for_=0.2)
    options = {"zones": (zone, blind), "rules": (rule,), "max_fps": 10.0}
    told: list[dict[str, object]] = []
    sender = BackgroundSender("test", told.append)
    with running(swappable, tmp_path, str(video_path), **options) as server:
        server.site.rule_sinks["dog-alone"] = [sender]
        server.ask("/v1/tags?tag=dog", "PATCH", {"on": -9.0})
        assert wait_for(lambda: told != [])
        query = "/v1/events?tag=dog-alone"
        assert wait_for(lambda: server.ask(query).json["events"] != [])
        events = server.ask(query).json["events"]
        assert [(e["kind"], e["zone"], e["has_picture"]) for e in events] == [
            ("rule", "gate", True)
        ]
        assert (told[0]["rule"], told[0]["camera"], told[0]["zone"]) == (
            "dog-alone",
            "cam1",
            "gate",
        )
        zones = {event["zone"] for event in server.ask("/v1/events?tag=dog").json["events"]}
        assert zones == {"", "gate"}
        (zone,) = server.ask("/v1/cameras/cam1").json["zones"]  # no patch of the other
        assert (zone["id"], zone["tags"], len(zone["points"])) == ("gate", ["dog"], 4)
        assert {"id": "gate", "on": ["dog"]} in server.ask("/v1/cameras/cam1/tags").json["zones"]
        for zones in ("false", "true"):
            answer = server.ask(f"/v1/cameras/cam1/snapshot?zones={zones}")
            row = np.asarray(Image.open(io.BytesIO(answer.body)), int)[48]
            assert bool(row[0].min() > 100) is (zones == "true")  # the outline is white
        assert server.ask("/v1/health").json["ready"]
    sender.close()


def test_a_clip_of_an_event_is_remuxed_and_playable(
    swappable: Path, video_path: Path, tmp_path: Path
) -> None:
    clips = ClipConfig(before=1.0, after=1.0)
    with running(swappable, tmp_path, str(video_path), clips=clips, max_fps=10.0) as server:

        def with_clip() -> list[dict[str, object]]:
            events = server.ask("/v1/events?limit=50").json["events"]
            return [event for event in events if event["has_clip"]]

        assert wait_for(lambda: with_clip() != [])
        answer = server.ask(f"/v1/events/{with_clip()[0]['id']}/clip")
        assert answer.headers["Content-Type"] == "video/mp4"
        with av.open(io.BytesIO(answer.body)) as clip, av.open(str(video_path)) as whole:
            (stream,), (source,) = clip.streams.video, whole.streams.video
            assert stream.codec_context.extradata == source.codec_context.extradata
            frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(stream)]
        assert len(frames) > 20  # a second at 25 frames
        assert frames[0].shape == (96, 128, 3)
        assert server.ask("/v1/events/999999/clip").status == 404
