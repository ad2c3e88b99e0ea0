"""Where the demo reaches each part of a running stack."""

from dataclasses import dataclass

from local_stack.urls import Login


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of a running stack.

    Attributes:
        publisher_amqp: The AMQP URL of an outside service.
        operator_amqp: The AMQP URL of the operator.
        management: The base URL of the broker's management API.
        operator: The operator's login there.
        admin: The administrator's login there.
        ledger: The URL of usage-ingest's database.
        ingest: The base URL of usage-ingest.
        events_api: The base URL of the events API.
        provisioner: The base URL of customer-provisioner.
        usage_api: The base URL of the usage API.
        api_key: A key of the HTTP APIs.
        accounts_key: A key of customer-provisioner that says who pays for a user.
        emulator: The base URL of the local Stripe.
        stripe_key: The key that the local Stripe accepts.
    """

    publisher_amqp: str
    operator_amqp: str
    management: str
    operator: Login
    admin: Login
    ledger: str
    ingest: str
    events_api: str
    provisioner: str
    usage_api: str
    api_key: str
    accounts_key: str
    emulator: str
    stripe_key: str
