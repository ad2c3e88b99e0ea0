"""The versioned message contracts that the services and their publishers share."""

from nexus_contracts.call_record import CallRecord, CallRecordsEnd, read_call_record
from nexus_contracts.customer_provisioned import CustomerProvisioned, CustomerProvisionedV1
from nexus_contracts.envelope import (
    BATCH_CONTENT_TYPE,
    CONTENT_TYPE,
    MAX_BODY_BYTES,
    Event,
    EventData,
    read_event,
)
from nexus_contracts.errors import (
    ContractError,
    InvalidEventError,
    UnreadableError,
    UnsupportedVersionError,
)
from nexus_contracts.stripe_changed import StripeChanged, StripeChangedV1
from nexus_contracts.subscription_changed import (
    SubscriptionChanged,
    SubscriptionChangedV1,
    SubscriptionItem,
)
from nexus_contracts.tool_executed import (
    TOOL_EXECUTED_VERSIONS,
    ToolExecuted,
    ToolExecutedV1,
    ToolExecutedV2,
)
from nexus_contracts.usage_recorded import UsageRecorded, UsageRecordedV1
from nexus_contracts.usage_rejected import UsageRejected, UsageRejectedV1
from nexus_contracts.usage_reported import UsageReported, UsageReportedV1
from nexus_contracts.usage_threshold_reached import UsageThresholdReached, UsageThresholdReachedV1
from nexus_contracts.user_assigned import UserAssigned, UserAssignedV1
from nexus_contracts.user_created import UserCreated, UserCreatedV1, UserCreatedV2
from nexus_contracts.user_updated import UserUpdated, UserUpdatedV1

ALL_EVENTS: tuple[type[EventData], ...] = (
    *TOOL_EXECUTED_VERSIONS,
    UserCreatedV1,
    UserCreatedV2,
    UserUpdatedV1,
    CustomerProvisionedV1,
    UserAssignedV1,
    SubscriptionChangedV1,
    UsageRecordedV1,
    UsageReportedV1,
    UsageRejectedV1,
    UsageThresholdReachedV1,
    StripeChangedV1,
)

__all__ = [
    "ALL_EVENTS",
    "BATCH_CONTENT_TYPE",
    "CONTENT_TYPE",
    "MAX_BODY_BYTES",
    "TOOL_EXECUTED_VERSIONS",
    "CallRecord",
    "CallRecordsEnd",
    "ContractError",
    "CustomerProvisioned",
    "CustomerProvisionedV1",
    "Event",
    "EventData",
    "InvalidEventError",
    "StripeChanged",
    "StripeChangedV1",
    "SubscriptionChanged",
    "SubscriptionChangedV1",
    "SubscriptionItem",
    "ToolExecuted",
    "ToolExecutedV1",
    "ToolExecutedV2",
    "UnreadableError",
    "UnsupportedVersionError",
    "UsageRecorded",
    "UsageRecordedV1",
    "UsageRejected",
    "UsageRejectedV1",
    "UsageReported",
    "UsageReportedV1",
    "UsageThresholdReached",
    "UsageThresholdReachedV1",
    "UserAssigned",
    "UserAssignedV1",
    "UserCreated",
    "UserCreatedV1",
    "UserCreatedV2",
    "UserUpdated",
    "UserUpdatedV1",
    "read_call_record",
    "read_event",
]
