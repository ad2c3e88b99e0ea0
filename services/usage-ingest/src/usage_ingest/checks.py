"""What ``check`` looks at, after the settings."""

from typing import Final

from nexus_broker_admin.inspection import broker_checks
from nexus_service.checks import database_checks
from usage_ingest.settings import NAME

CHECKS: Final = (*broker_checks(NAME), database_checks(NAME))
