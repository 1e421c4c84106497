"""The application: API, page and metrics behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from taidpt.runtime.pages.page import style
from taidpt.runtime.serve.api import Api
from taidpt.runtime.serve.feed import Feed
from taidpt.runtime.serve.live_picture import LivePicture
from taidpt.runtime.serve.metrics import Metrics
from taidpt.runtime.serve.operations import error, openapi, routes
from taidpt.runtime.serve.security import COOKIE, Guard, Limits, cookie_value, same_text
from taidpt.runtime.serve.tags_api import TagsApi, described_tower
from taidpt.runtime.sites.site import Camera, CameraGroup, Site
from taidpt.runtime.stream.moment import Moment

__all__ = ["make_app"]

_PAGE = Path(__file__).parent / "page"
# A login form holds a token, nothing else.
_LARGEST_FORM = 4096


def make_app(
    site: Site,
    feed: Feed,
    metrics: Metrics,
    token: str | None = None,
    limits: Limits | None = None,
) -> Starlette:
    """The application of a site.

    Args:
        site: what is served.
        feed: gets the events of the site's store.
        metrics: what Prometheus reads.
        token: what clients need; None needs none.
        limits: what one client may ask for.
    """
    pictures = {camera.id: LivePicture(camera) for camera in site.cameras.values()}
    operations = Api(site, feed, pictures).operations() + TagsApi(site).operations()
    for group in site.groups.values():
        _announce_changes(group, feed)
    document = openapi(operations, token is not None)

    def offer(camera: Camera, moment: Moment) -> None:
        pictures[camera.id].offer(moment)
        feed.on_moment(camera, moment)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        feed.attach(asyncio.get_running_loop())
        site.listeners.append(offer)
        yield
        site.listeners.remove(offer)

    def end_streams() -> None:
        feed.close()
        for picture in pictures.values():
            picture.close()

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": site.ready}, 200 if site.ready else 503)

    async def measured(request: Request) -> Response:
        return Response(await run_in_threadpool(metrics.text), media_type=metrics.media_type)

    async def described(request: Request) -> Response:
        return JSONResponse(document)

    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/static/colours.css", _colours),
            Route("/login", _login(token), methods=["GET", "POST"]),
            Route("/healthz", _alive),
            Route("/readyz", ready),
            Route("/metrics", measured),
            Route("/v1/openapi.json", described),
            *routes(operations),
            Mount("/static", StaticFiles(directory=_PAGE)),
        ],
        middleware=[
            Middleware(Guard, token=token, host=site.config.host, limits=limits or Limits())
        ],
        exception_handlers={HTTPException: _http_error, Exception: _bug},
        lifespan=lifespan,
    )
    app.state.end_streams, app.state.pictures = end_streams, pictures
    return app


def _announce_changes(group: CameraGroup, feed: Feed) -> None:
    """Tell every page when the tags change, and while the text tower is loaded."""
    bundle, tower = group.config.id, group.edits.tower

    def changed() -> None:
        feed.announce("bank", {"bundle": bundle, "tags": len(group.tagger.names)})

    def loaded() -> None:
        feed.announce("tower", {"bundle": bundle, **described_tower(tower)})

    group.edits.on_change, tower.on_change = changed, loaded


async def _page(request: Request) -> Response:
    return FileResponse(_PAGE / "index.html", headers={"Cache-Control": "no-cache"})


async def _colours(request: Request) -> Response:
    return Response(style("colours.css"), media_type="text/css")


def _login(token: str | None) -> Callable[[Request], Awaitable[Response]]:
    async def login(request: Request) -> Response:
        if token is None:
            return RedirectResponse("/", 303)
        if request.method != "POST":
            return FileResponse(_PAGE / "login.html", headers={"Cache-Control": "no-cache"})
        form = parse_qs((await request.body())[:_LARGEST_FORM].decode("utf-8", "replace"))
        value = cookie_value("".join(form.get("token", [""])).strip())
        if not same_text(value, cookie_value(token)):
            return RedirectResponse("/login?failed", 303)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, value, 365 * 86_400, httponly=True, samesite="strict", secure=secure
        )
        return answer

    return login


async def _alive(request: Request) -> Response:
    return JSONResponse({"alive": True})


async def _http_error(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)
    return error(failure.status_code, failure.detail, failure.headers)


async def _bug(request: Request, failure: Exception) -> Response:
    return error(500, f"{type(failure).__name__}: please report this")
