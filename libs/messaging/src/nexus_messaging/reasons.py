"""Why a message was dead-lettered: the closed list that operators and alerts use."""

from enum import StrEnum


class Reason(StrEnum):
    """The value of a dead letter's ``nexus-reason`` header."""

    UNREADABLE = "unreadable"
    UNSUPPORTED_VERSION = "unsupported_version"
    INVALID = "invalid"
    EVENT_ID_TAKEN = "event_id_taken"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"
    UNSTORABLE = "unstorable"
    UNKNOWN_REPORT = "unknown_report"
    NO_SUCH_CUSTOMER = "no_such_customer"
    FOREIGN_CUSTOMER = "foreign_customer"
    OTHER_CUSTOMER = "other_customer"
    REFUSED_BY_STRIPE = "refused_by_stripe"
    OUTCOME_UNKNOWN = "outcome_unknown"
    ATTEMPTS_SPENT = "attempts_spent"
    CRASHED_CONSUMER = "crashed_consumer"
