"""The API as an OpenAPI document and as a page to read, which loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from headstart.interfaces.http.limits import Limits

__all__ = ["TOP_LIMIT", "docs_page", "openapi"]

TOP_LIMIT = 100_000  # as many classes as a manifest may have
_JSON = "application/json"

_ERROR = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {"type": "string", "description": "One sentence: what is wrong and what is expected."}
    },
}
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_PREDICTION = {
    "type": "object",
    "required": ["file", "class", "probability", "novelty", "classes"],
    "additionalProperties": False,
    "properties": {
        "file": {
            "type": ["string", "null"],
            "description": "File name sent, made printable; null for a plain body.",
        },
        "class": {
            "type": "string",
            "description": "Most probable class, or 'none of these' for a novelty above 1.",
        },
        "probability": {**_PROBABILITY, "description": "Probability of the most probable class."},
        "novelty": {
            "type": ["number", "null"],
            "description": "How unlike all training images it is; null for a model without a novelty threshold.",
        },
        "classes": {
            "type": "array",
            "description": "Classes and probabilities, the most probable first.",
            "items": {
                "type": "object",
                "required": ["name", "probability"],
                "additionalProperties": False,
                "properties": {"name": {"type": "string"}, "probability": _PROBABILITY},
            },
        },
        "answer_set": {
            "type": "array",
            "description": "With the option sets: the classes that the image may have, the most probable first.",
            "items": {"type": "string"},
        },
    },
}
_ANSWER = {
    "type": "object",
    "required": ["model", "predictions"],
    "additionalProperties": False,
    "properties": {
        "model": {"type": "string"},
        "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
        "sets": {
            "type": "object",
            "description": "With the option sets.",
            "required": ["level", "remark"],
            "additionalProperties": False,
            "properties": {
                "level": {"type": "number"},
                "remark": {
                    "type": ["string", "null"],
                    "description": "Why every set holds all classes, if they do: too few images were left out.",
                },
            },
        },
    },
}
_MODEL = {
    "type": "object",
    "required": [
        "name",
        "classes",
        "input",
        "strategy",
        "data",
        "source",
        "novelty",
        "calibration",
        "scores",
    ],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "classes": {"type": "array", "items": {"type": "string"}},
        "strategy": {"type": "string"},
        **{
            key: {"type": "object"} for key in ("input", "data", "source", "novelty", "calibration", "scores")
        },
    },
}
_MODELS = {
    "type": "object",
    "required": ["models"],
    "additionalProperties": False,
    "properties": {"models": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}},
}
_STATE = {
    "type": "object",
    "required": ["status"],
    "additionalProperties": False,
    "properties": {"status": {"type": "string"}},
}
_SCHEMAS = {
    "Error": _ERROR,
    "Prediction": _PREDICTION,
    "Answer": _ANSWER,
    "Model": _MODEL,
    "Models": _MODELS,
    "State": _STATE,
}
_REASONS = {
    400: "The body is malformed.",
    401: "The token is missing or wrong.",
    403: "The request comes from another web page, or uses a name that is not this machine's.",
    404: "There is no such model.",
    408: "The body did not arrive in time, or too slowly.",
    413: "Too many bytes, images or pixels.",
    415: "The content type is not supported.",
    422: "Not a complete image, or an option with an invalid value.",
    503: "Too many requests are waiting, or the server is stopping; try again after Retry-After seconds.",
    504: "The response took too long; try again after Retry-After seconds.",
}


def openapi(limits: Limits, names: list[str], version: str, *, token: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
        "description": "Name of a model.",
        "examples": {one: {"value": one} for one in names},
    }
    closed, open_ = (401 if token else 403,), () if token else (403,)
    paths: dict[str, dict[str, Any]] = {
        "/v1/models/{name}/predict": {"parameters": [name], "post": _predict(limits, closed)},
        "/v1/models/{name}": {
            "parameters": [name],
            "get": _get("One model", _ref("Model"), *closed, 404, 503),
        },
        "/v1/models": {"get": _get("All models", _ref("Models"), *closed, 503)},
        "/metrics": {"get": _get("Metrics for Prometheus", {"text/plain": {}}, *closed, 503)},
        "/healthz": {"get": _get("Whether the process is alive", _ref("State"), *open_, 503)},
        "/readyz": {"get": _get("Whether the server accepts requests", _ref("State"), *open_, 503)},
    }
    for path in ("/healthz", "/readyz"):
        paths[path]["get"]["security"] = []
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Headstart", "version": version, "description": "Predicts the class of images."},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def docs_page(document: Mapping[str, Any]) -> str:
    """The document as one HTML page without scripts."""
    parts = []
    for path, item in document["paths"].items():
        for method in ("get", "post"):
            if method in item:
                parts.append(_section(method, path, item[method]))
    info = document["info"]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Headstart server</title>'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}"
        "code,pre{font-family:ui-monospace,monospace}pre{background:#8882;padding:.7rem;overflow:auto}"
        "td{padding:.1rem .8rem .1rem 0;vertical-align:top}:root{color-scheme:light dark}</style>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])} "
        'For programs: <a href="/openapi.json">/openapi.json</a>.</p>' + "".join(parts) + "</html>"
    )


def _section(method: str, path: str, operation: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<tr><td><code>{escape(status)}</code><td>{escape(one['description'])}"
        for status, one in operation["responses"].items()
    )
    more = operation.get("description", "")
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}.</p>"
        + "".join(f"<p>{escape(one)}</p>" for one in more.split("\n") if one)
        + f"<table>{lines}</table>"
    )


def _ref(name: str) -> dict[str, Any]:
    return {_JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _get(summary: str, content: Mapping[str, Any], *refused: int) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}, **_refused(*refused)},
    }


def _refused(*statuses: int) -> dict[str, Any]:
    return {str(status): {"description": _REASONS[status], "content": _ref("Error")} for status in statuses}


def _predict(limits: Limits, closed: tuple[int, ...]) -> dict[str, Any]:
    image = {"type": "string", "format": "binary", "contentMediaType": "image/*"}
    form = {
        "type": "object",
        "required": ["files"],
        "additionalProperties": False,
        "properties": {"files": {"type": "array", "minItems": 1, "items": image}},
    }
    plain = {"schema": {"type": "string", "format": "binary"}}
    kinds = ("application/octet-stream", "image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp")
    return {
        "summary": "Predict the class of each image",
        "description": (
            f"Send images as a form, field 'files', at most {limits.files}, or one as the body itself "
            "(image/* or application/octet-stream): PNG, JPEG, BMP, GIF (first frame), WEBP, TIFF or PPM, "
            f"at most {limits.image_px:,} pixels each and {limits.body_bytes:,} bytes together.\n"
            "Example: curl -F files=@bee.jpg http://127.0.0.1:8000/v1/models/NAME/predict"
        ),
        "parameters": [
            {
                "name": "top",
                "in": "query",
                "schema": {"type": "integer", "minimum": 1, "maximum": TOP_LIMIT, "default": 5},
                "description": "Number of classes for each image, at most as many as there are.",
            },
            {
                "name": "sets",
                "in": "query",
                "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                "description": "Also list the classes that each image may have: the true one is among them for this "
                "share of new images of the model's classes, such as 0.95.",
            },
        ],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, **dict.fromkeys(kinds, plain)},
        },
        "responses": {
            "200": {"description": "Predictions in the order of the images", "content": _ref("Answer")},
            **_refused(400, *closed, 404, 408, 413, 415, 422, 503, 504),
        },
    }
