"""What a running service counts, as whoever scrapes it sees it."""

import aiohttp


async def sample(base_url: str, name: str) -> float:
    """Return a sample of the service at ``base_url``, by its name with labels.

    Raises:
        LookupError: it shows none of that name; each is there from the start.
    """
    async with aiohttp.ClientSession() as session, session.get(f"{base_url}/metrics") as answer:
        for line in (await answer.text()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
    raise LookupError(f"{base_url} has no metric {name}")
