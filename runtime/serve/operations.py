"""One table of operations: the routes and the OpenAPI document are both made from it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from taidpt import __version__
from taidpt.runtime.errors import InputError, MissingDependencyError, TaidptError
from taidpt.runtime.redact import redact
from taidpt.runtime.serve.schema import Schema, check, object_of, parse, text
from taidpt.runtime.storage.json_reader import parse_json

__all__ = ["Answer", "Call", "Operation", "RefusedError", "openapi", "routes"]

_ERROR = object_of(error=text("What failed, in one line.", 2000))
# What security answers before any operation is called.
_EVERYWHERE = (400, 401, 403, 413, 429, 503)


class RefusedError(Exception):
    """A request that is answered by an error.

    Attributes:
        status: the HTTP status.
        reason: one line.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Answer:
    """What an operation returns: the schema of its JSON, or the type of its bytes."""

    description: str
    schema: Schema | None = None
    media: str = "application/json"
    status: int = 200


@dataclass(frozen=True)
class Call:
    """One request with values that fit the operation.

    Attributes:
        values: parameters of path and query by name; those that were not given are None, or have
            their default.
        body: the JSON document, or bytes.
        request: the request itself.
    """

    values: Mapping[str, Any]
    body: Any
    request: Request


Handler = Callable[[Call], Any | Awaitable[Any]]


@dataclass(frozen=True)
class Operation:
    """One operation of the API.

    Attributes:
        method, path: as in an OpenAPI document.
        name: its id.
        summary: one line.
        handler: returns JSON values or a Response; a plain function runs in a thread.
        answer: what it returns.
        path_values, query: parameters by name.
        body: content type → the schema of the body; a schema of bytes has the format "binary".
        errors: the statuses with which it may refuse.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    answer: Answer
    path_values: Mapping[str, Schema] = field(default_factory=dict)
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Mapping[str, Schema] = field(default_factory=dict)
    errors: Sequence[int] = ()

    async def serve(self, request: Request) -> Response:
        """Check a request, call the handler, and answer."""
        try:
            call = Call(self._values(request), await self._body(request), request)
            result = self.handler(call) if self._is_async else None
            result = (
                await result if result is not None else await run_in_threadpool(self.handler, call)
            )
        except RefusedError as refused:
            return error(refused.status, refused.reason)
        except MissingDependencyError as missing:
            return error(409, str(missing))
        except TaidptError as failure:
            return error(400, str(failure))
        if isinstance(result, Response):
            return result
        return JSONResponse(result, self.answer.status)

    @property
    def _is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.handler)

    def _values(self, request: Request) -> dict[str, Any]:
        values: dict[str, Any] = {
            name: parse(request.path_params[name], schema, name)
            for name, schema in self.path_values.items()
        }
        given = request.query_params
        for name in given:
            if name not in self.query:
                raise RefusedError(400, f"{self.path} has no parameter {name!r}")
            if len(given.getlist(name)) > 1:
                raise RefusedError(400, f"{name} stands twice")
        for name, schema in self.query.items():
            if name in given:
                values[name] = parse(given[name], schema, name)
            elif schema.get("x-required"):
                raise RefusedError(400, f"{self.path} needs the parameter {name!r}")
            else:
                values[name] = schema.get("default")
        return values

    async def _body(self, request: Request) -> Any:
        if not self.body:
            return None
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in self.body:
            raise RefusedError(415, f"the body should be {' or '.join(self.body)}, got {kind!r}")
        data = await request.body()
        schema = self.body[kind]
        if schema.get("format") == "binary":
            if not data:
                raise RefusedError(400, "the body is empty")
            return data
        try:
            document = parse_json(data)
        except (ValueError, InputError) as failure:
            raise RefusedError(400, f"the body is not JSON: {failure}") from None
        check(document, schema, "body")
        return document


def error(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as the API answers it: `{"error": "…"}`, without passwords."""
    return JSONResponse({"error": redact(reason)[:2000]}, status, headers)


def routes(operations: Sequence[Operation]) -> list[Route]:
    """The routes of Starlette, one a path, so that other methods are answered with 405."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [_route(path, methods) for path, methods in by_path.items()]


def _route(path: str, methods: Mapping[str, Operation]) -> Route:
    async def serve(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await methods[method].serve(request)

    return Route(path, serve, methods=list(methods))


def openapi(operations: Sequence[Operation], with_token: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the operations.

    Args:
        operations: the table.
        with_token: whether a token is needed.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    schemes = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "taidpt serve", "version": __version__},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}, "securitySchemes": schemes},
        "security": [{"token": []}] if with_token else [],
    }


def _described(operation: Operation) -> dict[str, Any]:
    answer = operation.answer
    content = {answer.media: {"schema": dict(answer.schema)} if answer.schema else {}}
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": dict(schema)}
                for name, schema in operation.path_values.items()
            ),
            *(
                {
                    "name": name,
                    "in": "query",
                    "required": bool(schema.get("x-required")),
                    "schema": {key: schema[key] for key in schema if key != "x-required"},
                }
                for name, schema in operation.query.items()
            ),
        ],
        "responses": {
            str(answer.status): {"description": answer.description, "content": content},
            **{
                str(status): {"description": HTTPStatus(status).phrase, "content": refused}
                for status in sorted({*_EVERYWHERE, *operation.errors})
            },
        },
    }
    if operation.body:
        bodies = {kind: {"schema": dict(schema)} for kind, schema in operation.body.items()}
        described["requestBody"] = {"required": True, "content": bodies}
    return described
