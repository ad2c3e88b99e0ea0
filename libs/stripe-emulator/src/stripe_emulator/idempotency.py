"""The idempotency store: one answer per key for 24 hours."""

import json
from dataclasses import dataclass

from stripe_emulator.answers import HttpAnswer
from stripe_emulator.errors import invalid_parameter, key_in_use, other_endpoint, other_parameters
from stripe_emulator.forms import Form

KEPT_SECONDS = 24 * 3600
MAX_KEY_CHARACTERS = 255


@dataclass(slots=True)
class _Kept:
    endpoint: str
    parameters: str
    began: float
    request_id: str
    answer: HttpAnswer | None = None


class IdempotencyStore:
    """Keys of POST requests: in flight, then answered, then deleted after 24 hours."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def begin(
        self, key: str, endpoint: str, form: Form, request_id: str, now: float
    ) -> HttpAnswer | None:
        """Take the key for this request, or return the answer it already has.

        Args:
            key: The ``Idempotency-Key`` header.
            endpoint: The request's path.
            form: Its parameters, compared with those the key was first used with.
            request_id: Named by later replays as ``Original-Request``.
            now: Unix seconds.

        Raises:
            StripeError: 400 for a key that is too long or was used for another request, 409 while
                the key's first request is in flight.
        """
        if len(key) > MAX_KEY_CHARACTERS:
            message = f"Idempotency-Key must be at most {MAX_KEY_CHARACTERS} characters."
            raise invalid_parameter("Idempotency-Key", message)
        self._delete_old(now)
        parameters = json.dumps(form, sort_keys=True)
        kept = self._kept.get(key)
        if kept is None:
            self._kept[key] = _Kept(endpoint, parameters, now, request_id)
            return None
        if kept.endpoint != endpoint:
            raise other_endpoint(key, kept.endpoint, endpoint)
        if kept.parameters != parameters:
            raise other_parameters(key)
        if kept.answer is None:
            raise key_in_use(key)
        replayed = {"Idempotent-Replayed": "true", "Original-Request": kept.request_id}
        return HttpAnswer(kept.answer.status, kept.answer.body, {**kept.answer.headers, **replayed})

    def finish(self, key: str, answer: HttpAnswer) -> None:
        """Keep the answer of the request that took the key."""
        self._kept[key].answer = answer

    def release(self, key: str) -> None:
        """Delete the key: its request was refused before it was executed."""
        del self._kept[key]

    def _delete_old(self, now: float) -> None:
        # Insertion order is age, except after the clock was set back or while a call hangs: a key
        # behind a younger one is then kept longer, as "at least 24 hours" allows.
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if kept.answer is None or now - kept.began < KEPT_SECONDS:
                return
            del self._kept[key]
