"""What a broker that does not let us in means, for the person who has to mend it."""

from aiormq import exceptions


def refusal_of(error: Exception) -> str:
    """Say why no connection came about, and which setting to look at, without its value."""
    match error:
        case exceptions.AuthenticationError() | exceptions.ProbableAuthenticationError():
            return "the login of AMQP_URL is refused: its user or password is wrong"
        case exceptions.ConnectionNotAllowed() | exceptions.InvalidFrameError():
            # The library expects anything but the broker's no when it asks for the vhost.
            return "the vhost of AMQP_URL is missing or not its user's: run nexus-topology apply"
        case _:
            return f"not reachable: {type(error).__name__}"
