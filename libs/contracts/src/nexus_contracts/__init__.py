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
from nexus_contracts.meter_errors_found import MeterErrorsFound, MeterErrorsFoundV1
from nexus_contracts.stripe_changed import StripeChanged, StripeChangedV1
from nexus_contracts.subscription_changed import (
    SubscriptionChanged,
    SubscriptionChangedV1,
    SubscriptionItem,
)
from nexus_contracts.subscriptions_read import SubscriptionsRead, SubscriptionsReadV1
from nexus_contracts.tool_executed import (
    TOOL_EXECUTED_VERSIONS,
    ToolExecuted,
    ToolExecutedV1,
    ToolExecutedV2,
)
from nexus_contracts.usage_counted import CountedHour, UsageCounted, UsageCountedV1
from nexus_contracts.usage_recorded import UsageRecorded, UsageRecordedV1
from nexus_contracts.usage_rejected import UsageRejected, UsageRejectedV1
from nexus_contracts.usage_rejected_later import UsageRejectedLater, UsageRejectedLaterV1
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
    SubscriptionsReadV1,
    UsageRecordedV1,
    UsageReportedV1,
    UsageRejectedV1,
    UsageRejectedLaterV1,
    UsageCountedV1,
    UsageThresholdReachedV1,
    StripeChangedV1,
    MeterErrorsFoundV1,
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
    "CountedHour",
    "CustomerProvisioned",
    "CustomerProvisionedV1",
    "Event",
    "EventData",
    "InvalidEventError",
    "MeterErrorsFound",
    "MeterErrorsFoundV1",
    "StripeChanged",
    "StripeChangedV1",
    "SubscriptionChanged",
    "SubscriptionChangedV1",
    "SubscriptionItem",
    "SubscriptionsRead",
    "SubscriptionsReadV1",
    "ToolExecuted",
    "ToolExecutedV1",
    "ToolExecutedV2",
    "UnreadableError",
    "UnsupportedVersionError",
    "UsageCounted",
    "UsageCountedV1",
    "UsageRecorded",
    "UsageRecordedV1",
    "UsageRejected",
    "UsageRejectedLater",
    "UsageRejectedLaterV1",
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
