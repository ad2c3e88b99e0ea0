"""A faithful, stateful local Stripe for development, demos and tests of usage metering."""

from stripe_emulator.client import EmulatorClient
from stripe_emulator.options import Options
from stripe_emulator.running import DEFAULT_KEY, RunningEmulator, Webhook, running_emulator

__all__ = [
    "DEFAULT_KEY",
    "EmulatorClient",
    "Options",
    "RunningEmulator",
    "Webhook",
    "running_emulator",
]
