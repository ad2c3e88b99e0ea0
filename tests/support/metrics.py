"""The metrics of a running service, as Prometheus scrapes them."""

import aiohttp


async def sample(base_url: str, name: str) -> float:
    """Return a sample of the service at ``base_url``, by its name with labels.

    Raises:
        LookupError: there is none of that name; a service exports every series from its start.
    """
    async with aiohttp.ClientSession() as session, session.get(f"{base_url}/metrics") as answer:
        for line in (await answer.text()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
    raise LookupError(f"{base_url} has no metric {name}")
