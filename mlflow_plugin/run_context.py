"""Links what a trainer logs by itself inside an action (autolog, report_to="mlflow") to the action's run.

MLflow asks every provider at each fluent `start_run`; one that raises would break `import mlflow` for everybody.
"""

import os

from mlflow.tracking.context.abstract_context import RunContextProvider

# MLflow imports this module with itself, in every command and server. `mlflow ui` and `mlflow server` go on to import
# litellm, which fetches a price list at its import and, without a network, can hang there for ever (litellm 1.106.2).
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

VARIABLE = "LAMDAGENT_RUN_ID"
"""Set by the worker to the run id of the action that it runs; absent outside an action."""


class ActionRunContext(RunContextProvider):  # type: ignore[misc]
    """Nests such a run under the action's run, so that it is found where one looks for it."""

    def in_context(self) -> bool:
        """True inside an action."""
        return bool(os.environ.get(VARIABLE))

    def tags(self) -> dict[str, str]:
        """The action's run as parent; a run that the user nests elsewhere keeps its own parent."""
        run_id = os.environ.get(VARIABLE, "")
        return {"mlflow.parentRunId": run_id, "lamdagent.action_run": run_id}
