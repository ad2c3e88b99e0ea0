"""Plans, limits, prices and the price table of models: one file, validated, and what it decides."""

from nexus_plans.model_prices import Model, ModelPrice, NoPrice, Priced, Tokens
from nexus_plans.parts import (
    DENY,
    Charge,
    Limit,
    Meter,
    Plan,
    RateLimit,
    Route,
)
from nexus_plans.patterns import ANYTHING, Pattern
from nexus_plans.plans import PLAN_TYPE, SEATS, Plans
from nexus_plans.reading import PlansError, load
from nexus_plans.schema import schema
from nexus_plans.stripe_prices import Price, PriceTier, Product, Recurring

__all__ = [
    "ANYTHING",
    "DENY",
    "PLAN_TYPE",
    "SEATS",
    "Charge",
    "Limit",
    "Meter",
    "Model",
    "ModelPrice",
    "NoPrice",
    "Pattern",
    "Plan",
    "Plans",
    "PlansError",
    "Price",
    "PriceTier",
    "Priced",
    "Product",
    "RateLimit",
    "Recurring",
    "Route",
    "Tokens",
    "load",
    "schema",
]
