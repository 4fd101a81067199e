"""`mlflow server --app-name lamdagent`: all of MLflow, and a page per search.

    GET /lamdagent/                         the searches
    GET /lamdagent/search?run_id=<run id>   best-so-far curve, pipelines, Pareto front and reasons of one search

The server's own database gets the indexes that searches on it profit from. Both pages are read-only and stand behind
`--static-prefix`. `--app-name lamdagent-auth` is the same behind MLflow's own basic-auth app, with its settings: one
sees the searches of the experiments that one may read. The run id stands in the query because MLflow's authorization
finds a route by its exact path and the run by that parameter.
"""

import os
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, abort, request
from mlflow import MlflowClient
from mlflow.environment_variables import _MLFLOW_SGI_NAME
from mlflow.server import BACKEND_STORE_URI_ENV_VAR, app
from mlflow.server.handlers import _add_static_prefix, catch_mlflow_exception

from lamdagent.report.render import index, page, policy
from lamdagent.tracking import schema
from lamdagent.tracking.indexes import ensure_indexes
from mlflow_plugin.reading import Listed, Readable, search_document, searches

LIST = "/lamdagent/"
SEARCH = "/lamdagent/search"


def create_app() -> Any:
    """MLflow's server and the pages, open to whoever reaches the server."""
    _add_pages(lambda experiment_ids: experiment_ids)
    if _MLFLOW_SGI_NAME.get() != "uvicorn":
        return app
    from mlflow.server.fastapi_app import create_fastapi_app

    return create_fastapi_app(app)


def create_auth_app() -> Any:
    """The same behind MLflow's basic-auth app: that decides who may read which experiment.

    MLflow denies routes that it does not know; these two are made known to it with its own checks.
    """
    from mlflow.server import auth

    auth.BEFORE_REQUEST_VALIDATORS[_add_static_prefix(LIST), "GET"] = lambda: True  # the list itself is filtered
    auth.BEFORE_REQUEST_VALIDATORS[_add_static_prefix(SEARCH), "GET"] = auth.validate_can_read_run
    _add_pages(auth.filter_experiment_ids)
    return auth.create_app(app)


def _add_pages(readable: Readable) -> None:
    """Both routes on MLflow's Flask app, before it is wrapped: what comes later is never reached."""
    ensure_indexes(os.environ.get(BACKEND_STORE_URI_ENV_VAR, ""))
    pages = Blueprint("lamdagent", __name__)

    @pages.get(_add_static_prefix(LIST))
    @catch_mlflow_exception
    def list_searches() -> Response:
        return _html(index([_line(listed) for listed in searches(_client(), readable)]))

    @pages.get(_add_static_prefix(SEARCH))
    @catch_mlflow_exception
    def show_search() -> Response:
        document = search_document(_client(), request.args.get("run_id", ""), readable)
        if document is None:
            abort(404, "There is no search run of that id.")
        return _html(page(document, links="../"))

    app.register_blueprint(pages)


def _client() -> MlflowClient:
    return MlflowClient(tracking_uri=os.environ[BACKEND_STORE_URI_ENV_VAR])


def _line(listed: Listed) -> dict[str, str]:
    record = listed.record
    score = record.metrics.get(schema.SCORE)
    return {
        "name": record.name or record.run_id,
        "href": f"search?run_id={record.run_id}",
        "experiment": listed.experiment,
        "status": record.status.lower(),
        "score": "" if score is None else f"{score:.3f}",
        "when": datetime.fromtimestamp(record.start_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M"),
    }


def _html(text: str) -> Response:
    response = Response(text, mimetype="text/html")
    response.headers["Content-Security-Policy"] = f"{policy()}; frame-ancestors 'self'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response
