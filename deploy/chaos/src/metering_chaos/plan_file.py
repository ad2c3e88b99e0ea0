"""The file of plans of a run: the example's, and later the price of one more model."""

from pathlib import Path
from typing import Final

from local_stack.catalogue import EXAMPLE_PLANS

LATE_MODEL: Final = "chaos-1"
"""A model whose runs are recorded before the file has its price."""

MICRO_USD: Final = {
    "claude-sonnet-4-5": (3, 15),
    "claude-haiku-4-5": (1, 5),
    LATE_MODEL: (2, 7),
}
"""What a token costs that a model read, and one that it wrote."""

_LATE_PRICE: Final = f"""
  {LATE_MODEL}:
    cached_tokens: part
    prices:
      - {{from: 2025-01-01, input: 2000000, output: 7000000, cached: 0, source: "chaos"}}
"""


def write_plans(directory: Path) -> Path:
    """Write the file without that price, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory.absolute() / "plans.yaml"
    path.write_text(EXAMPLE_PLANS.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def append_price(path: Path) -> None:
    """Append the price, unless it is there: the models are the last part of the file."""
    text = path.read_text(encoding="utf-8")
    if not text.endswith(_LATE_PRICE):
        path.write_text(text + _LATE_PRICE, encoding="utf-8")
