"""The API under /v1: the table of its operations, and what each does."""

from __future__ import annotations

import time
from typing import Any

from starlette.responses import Response

from taidpt.runtime.painting.drawing import jpeg, paint_heatmap, paint_regions, rgb_image
from taidpt.runtime.results import TagResult
from taidpt.runtime.serve.feed import Feed, tags_of
from taidpt.runtime.serve.live_picture import BOUNDARY, LivePicture, live_parts
from taidpt.runtime.serve.operations import Answer, Call, Operation, RefusedError
from taidpt.runtime.serve.schema import Schema, array, integer, nullable, number, object_of, text
from taidpt.runtime.serve.streams import EndlessResponse, Seats
from taidpt.runtime.serve.tags_api import BUNDLE_ID, group_of
from taidpt.runtime.serve.uploads import PICTURES, decode_pictures
from taidpt.runtime.sites.site import Camera, Site
from taidpt.runtime.sites.store import EventQuery, StoredEvent
from taidpt.runtime.stream.moment import Moment

__all__ = ["Api"]

# Width of snapshots in pixels: the whole frame of most cameras.
_SNAPSHOT_WIDTH = 1920
_LARGEST_ID = 2**53 - 1

_CAMERA_ID = text("The camera's id.", 64)
_TAG_NAME = text("The tag's name.")
_EVENT_ID = integer("The event's number.", 1, _LARGEST_ID)
_AT = number("Seconds since 1970.")
_SCORED_TAG = object_of(
    name=_TAG_NAME,
    score=number("The score of this frame alone."),
    on={"type": "boolean", "description": "After smoothing."},
    probability=nullable(number("Calibrated; null before calibration.")),
    threshold=number("The score that turns the tag on."),
)
_ZONE_ID = text("The zone's id.", 64)
_POINT = array(number("x or y."), "x and y in parts of the picture, 0 to 1.")
_CAMERA = object_of(
    id=_CAMERA_ID,
    bundle=text("Id of the bundle that tags it.", 64),
    address=text("Where it is, without passwords.", 2000),
    state=text("How it is.", enum=["connecting", "running", "stopped"]),
    error=nullable(text("Why it cannot be opened.", 2000)),
    age_s=nullable(number("Seconds since its last frame.")),
    frames=integer("Frames that it has given.", 0, _LARGEST_ID),
    tagged=integer("Frames that were tagged.", 0, _LARGEST_ID),
    dropped=integer("Frames that newer ones replaced.", 0, _LARGEST_ID),
    reconnects=integer("How often it was opened again.", 0, _LARGEST_ID),
    viewers=integer("Viewers of its live picture.", 0, _LARGEST_ID),
    on=array(_TAG_NAME, "Tags that are on."),
    zones=array(
        object_of(
            id=_ZONE_ID,
            points=array(_POINT, "Its corners."),
            tags=array(_TAG_NAME, "Tags that are looked for; all, where it is empty."),
        ),
        "Its regions.",
    ),
)
_EVENT = object_of(
    id=integer("Its number; 0 where it could not be stored.", 0, _LARGEST_ID),
    at=_AT,
    decided_at=_AT,
    camera=_CAMERA_ID,
    zone={"type": "string", "description": "The zone's id; empty for the whole picture."},
    tag=_TAG_NAME,
    kind=text("What happened.", enum=["on", "off", "rule"]),
    score=nullable(number("The smoothed score at the decision.")),
    peak=nullable(number("The highest smoothed score since the tag went on.")),
    has_picture={"type": "boolean"},
    has_clip={"type": "boolean"},
)
_BYTES: Schema = {"type": "string", "format": "binary"}
_YES_OR_NO: Schema = {"type": "boolean", "default": False}


class Api:
    """The operations of a site."""

    def __init__(self, site: Site, feed: Feed, pictures: dict[str, LivePicture]) -> None:
        self._site, self._feed, self._pictures = site, feed, pictures
        self._seats = Seats()
        self._began_s = time.monotonic()

    def operations(self) -> list[Operation]:
        """The table."""
        camera = {"camera": _CAMERA_ID}
        jpeg_answer = Answer("The picture.", _BYTES, "image/jpeg")
        return [
            Operation("GET", "/v1/health", "health", "How the service is.", self._health, _HEALTH),
            Operation(
                *("GET", "/v1/cameras", "cameras", "All cameras.", self._cameras),
                Answer("The cameras.", object_of(cameras=array(_CAMERA))),
            ),
            Operation(
                *("GET", "/v1/cameras/{camera}", "camera", "One camera.", self._one_camera),
                Answer("The camera.", _CAMERA),
                camera,
                errors=(404,),
            ),
            Operation(
                *("GET", "/v1/cameras/{camera}/tags", "camera-tags", "What a camera shows now."),
                self._camera_tags,
                Answer(
                    "Its best tags, and all that are on.",
                    object_of(
                        camera=_CAMERA_ID,
                        tags=array(_SCORED_TAG),
                        zones=array(object_of(id=_ZONE_ID, on=array(_TAG_NAME, "Tags on in it."))),
                    ),
                ),
                camera,
                {"top": integer("How many of the best.", 1, 100_000, default=20)},
                errors=(404,),
            ),
            Operation(
                *("GET", "/v1/cameras/{camera}/snapshot", "snapshot", "The last frame."),
                self._snapshot,
                jpeg_answer,
                camera,
                {"zones": {**_YES_OR_NO, "description": "Draw the camera's zones on it."}},
                errors=(404,),
            ),
            Operation(
                *("GET", "/v1/cameras/{camera}/heatmap", "heatmap", "Where a tag is seen."),
                self._heatmap,
                jpeg_answer,
                camera,
                {"tag": {**_TAG_NAME, "x-required": True}},
                errors=(404,),
            ),
            Operation(
                *("GET", "/v1/cameras/{camera}/live", "live", "The live picture, as MJPEG."),
                self._live,
                Answer("JPEG pictures without an end.", _BYTES, "multipart/x-mixed-replace"),
                camera,
                errors=(404,),
            ),
            Operation(
                *("GET", "/v1/live", "live-all", "The live pictures of all cameras."),
                self._live_all,
                Answer(
                    "JPEG pictures without an end; each part names its camera in X-Camera.",
                    _BYTES,
                    "multipart/x-mixed-replace",
                ),
            ),
            Operation(
                *("GET", "/v1/events", "events", "Events, the newest first.", self._events),
                Answer(
                    "A page of events, and `before` of the next page.",
                    object_of(events=array(_EVENT), next=nullable(integer("", 1, _LARGEST_ID))),
                ),
                query={
                    "tag": _TAG_NAME,
                    "camera": _CAMERA_ID,
                    "since": _AT,
                    "until": _AT,
                    "before": integer("Only events with a lower number.", 1, _LARGEST_ID),
                    "limit": integer("How many at most.", 1, 1000, default=100),
                },
            ),
            Operation(
                *("GET", "/v1/events/{event}", "event", "One event.", self._one_event),
                Answer("The event.", _EVENT),
                {"event": _EVENT_ID},
                errors=(404,),
            ),
            Operation(
                *("GET", "/v1/events/{event}/snapshot", "event-snapshot", "An event's picture."),
                self._event_snapshot,
                jpeg_answer,
                {"event": _EVENT_ID},
                errors=(404,),
            ),
            Operation(
                *("GET", "/v1/events/{event}/clip", "event-clip", "An event's video."),
                self._event_clip,
                Answer("MP4; it comes some seconds after the event.", _BYTES, "video/mp4"),
                {"event": _EVENT_ID},
                errors=(404,),
            ),
            Operation(
                *("GET", "/v1/stream", "stream", "Tags and events as they come."),
                self._stream,
                Answer(
                    "Server-sent events `tags`, `event`, `bank` and `tower`; resumable by "
                    "Last-Event-ID.",
                    {"type": "string"},
                    "text/event-stream",
                ),
            ),
            Operation(
                *("POST", "/v1/tag", "tag", "Tag a picture, or several as base64."),
                self._tag,
                Answer(
                    "For each picture its tags, best first.",
                    object_of(pictures=array(object_of(tags=array(_UPLOADED_TAG)))),
                ),
                query={
                    "top": integer("How many of the best.", 1, 100_000, default=20),
                    "bundle": BUNDLE_ID,
                },
                body={
                    "application/json": object_of(pictures=PICTURES),
                    **dict.fromkeys(("image/jpeg", "image/png", "image/webp"), _BYTES),
                    "application/octet-stream": _BYTES,
                },
                errors=(404, 415, 422),
            ),
        ]

    def _health(self, call: Call) -> dict[str, Any]:
        site, store = self._site, self._site.store
        return {
            "ready": site.ready,
            "uptime_s": time.monotonic() - self._began_s,
            "events": {
                "bytes": store.size,
                "waiting": store.waiting,
                "lost": store.lost,
                "failure": store.failure or None,
            },
        }

    def _cameras(self, call: Call) -> dict[str, Any]:
        return {"cameras": [self._described(camera) for camera in self._site.cameras.values()]}

    def _one_camera(self, call: Call) -> dict[str, Any]:
        return self._described(self._camera(call))

    def _described(self, camera: Camera) -> dict[str, Any]:
        source, moment = camera.source, camera.latest
        status = source.status
        return {
            "id": camera.id,
            "bundle": camera.bundle,
            "address": status.address,
            "state": status.state,
            "error": status.error or None,
            "age_s": None if status.last_s is None else time.monotonic() - status.last_s,
            "frames": status.frames,
            "tagged": camera.tagged,
            "dropped": self._site.group_of(camera).dropped(camera.id),
            "reconnects": source.reconnects,
            "viewers": self._pictures[camera.id].viewers,
            "on": [] if moment is None else list(moment.on),
            "zones": [
                {"id": zone.config.id, "points": zone.config.points, "tags": zone.config.tags}
                for zone in tuple(camera.zones)
            ],
        }

    def _camera_tags(self, call: Call) -> dict[str, Any]:
        camera = self._camera(call)
        if camera.latest is None:
            return {"camera": camera.id, "tags": [], "zones": []}
        return tags_of(camera, camera.latest, call.values["top"])

    def _snapshot(self, call: Call) -> Response:
        camera, moment = self._camera(call), self._moment(call)
        picture = rgb_image(moment.frame.picture)
        if call.values["zones"]:
            zones = {zone.config.id: zone.config.points for zone in tuple(camera.zones)}
            picture = paint_regions(picture, zones)
        return _jpeg(jpeg(picture, _SNAPSHOT_WIDTH))

    def _heatmap(self, call: Call) -> Response:
        moment, tag = self._moment(call), call.values["tag"]
        if tag not in moment.result.vocabulary.names:
            raise RefusedError(404, f"there is no tag {tag!r}")
        tagger = self._site.group_of(self._camera(call)).tagger
        spec = tagger.bundle.manifest.input
        picture = paint_heatmap(rgb_image(moment.frame.picture), moment.result, tag, spec)
        return _jpeg(jpeg(picture, _SNAPSHOT_WIDTH))

    async def _live(self, call: Call) -> Response:
        return self._endless_pictures([self._pictures[self._camera(call).id]])

    async def _live_all(self, call: Call) -> Response:
        return self._endless_pictures(list(self._pictures.values()))

    def _endless_pictures(self, pictures: list[LivePicture]) -> Response:
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        return EndlessResponse(live_parts(pictures), kind, self._seats.take())

    async def _stream(self, call: Call) -> Response:
        written = call.request.headers.get("last-event-id", "")
        last_id = int(written) if written.isdigit() and len(written) < 17 else None
        return EndlessResponse(self._feed.parts(last_id), "text/event-stream", self._seats.take())

    def _events(self, call: Call) -> dict[str, Any]:
        limit = int(call.values["limit"])
        names = ("tag", "camera", "since", "until", "before")
        query = EventQuery(**{name: call.values[name] for name in names}, limit=limit)
        events = self._site.store.events(query)
        return {
            "events": [event.to_dict() for event in events],
            "next": events[-1].id if len(events) == limit else None,
        }

    def _one_event(self, call: Call) -> dict[str, Any]:
        return self._event(call).to_dict()

    def _event_snapshot(self, call: Call) -> Response:
        event = self._event(call)
        picture = self._site.store.picture(event.id)
        if picture is None:
            raise RefusedError(404, f"event {event.id} has no picture")
        return _jpeg(picture, "private, max-age=31536000, immutable")

    def _event_clip(self, call: Call) -> Response:
        event = self._event(call)
        clip = self._site.store.clip(event.id)
        if clip is None:
            raise RefusedError(404, f"event {event.id} has no clip")
        headers = {"Cache-Control": "private, max-age=31536000, immutable"}
        return Response(clip, media_type="video/mp4", headers=headers)

    def _tag(self, call: Call) -> dict[str, Any]:
        single = isinstance(call.body, bytes)
        pictures = decode_pictures([call.body] if single else call.body["pictures"])
        results = group_of(self._site, call).tagger.tag_batch(pictures)
        return {"pictures": [_tagged(result, call.values["top"]) for result in results]}

    def _camera(self, call: Call) -> Camera:
        name = call.values["camera"]
        camera = self._site.cameras.get(name)
        if camera is None:
            raise RefusedError(404, f"there is no camera {name!r}")
        return camera

    def _moment(self, call: Call) -> Moment:
        camera = self._camera(call)
        if camera.latest is None:
            raise RefusedError(404, f"{camera.id} has given no frame yet")
        return camera.latest

    def _event(self, call: Call) -> StoredEvent:
        number = int(call.values["event"])
        event = self._site.store.event(number)
        if event is None:
            raise RefusedError(404, f"there is no event {number}")
        return event


_UPLOADED_TAG = object_of(
    name=_TAG_NAME,
    score=number("The merged score."),
    on={"type": "boolean"},
    probability=nullable(number("Calibrated; null before calibration.")),
)
_HEALTH = Answer(
    "How the service is.",
    object_of(
        ready={"type": "boolean"},
        uptime_s=number("Seconds since the start."),
        events=object_of(
            bytes=integer("Size of the store.", 0, _LARGEST_ID),
            waiting=integer("Events that are not written yet.", 0, _LARGEST_ID),
            lost=integer("Events that could not be written.", 0, _LARGEST_ID),
            failure=nullable(text("Why the last write failed.", 2000)),
        ),
    ),
)


def _tagged(result: TagResult, top: int) -> dict[str, Any]:
    return {
        "tags": [
            {"name": tag.name, "score": tag.score, "on": tag.on, "probability": tag.probability}
            for tag in result.top(top)
        ]
    }


def _jpeg(data: bytes, cache: str = "no-store") -> Response:
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": cache})
