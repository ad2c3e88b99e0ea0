"""The file's JSON Schema, for editors and reviews."""

from typing import Any, Final

from nexus_plans.plans import Plans

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the file; rules between its parts are not in it."""
    made = Plans.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": DIALECT, **made, "title": "plans.yaml"}
