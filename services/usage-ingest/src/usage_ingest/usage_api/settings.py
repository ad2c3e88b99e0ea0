"""The settings of the usage API."""

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field

from nexus_database.settings import DatabaseSettings
from nexus_service.api_keys import ApiSettings
from nexus_service.settings import ProcessSettings
from usage_ingest.settings import PlansFile

_ORIGIN: Final = re.compile(
    r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?|https?://\[[0-9a-f:]+\](?::[0-9]{1,5})?"
)


def _split(value: object) -> object:
    return [each.strip() for each in value.split(",")] if isinstance(value, str) else value


def _origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ValueError("must be origins such as https://app.example.com, without * and path")
    return origin


Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_split)]


class PlansSettings(DatabaseSettings):
    """What `usage-ingest usage` needs: the database, and the file of plans if there is one."""

    plans_file: PlansFile = None
    """The file of plans, as usage-ingest has it; empty: none, and no entitlements are answered."""


class Settings(PlansSettings, ApiSettings, ProcessSettings):
    """Its database role is `usage_reader`; it has no rights on the broker."""

    usage_token_keys: Path | None = None
    """A file with the public keys of users' tokens, a JSON Web Key Set, which is read again when it
    changes; empty: no token is accepted."""
    usage_origins: Origins = ()
    """The origins of pages that may ask from a browser, such as `https://app.example.com`,
    comma-separated."""
    usage_frame_ancestors: Origins = ()
    """The origins of pages that may show ours in a frame; empty: none."""
    usage_rate_limit: float = Field(5.0, gt=0, allow_inf_nan=False)
    """Requests per second that one user may send to one process with tokens; at once ten times as
    many."""
    usage_component_dir: Path | None = None
    """A folder with the built web component, whose files are served; empty: none are."""
