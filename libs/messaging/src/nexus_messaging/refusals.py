"""Explains to an operator why the broker refused a connection."""

from aiormq import exceptions


def refusal_of(error: Exception) -> str:
    """Return why the connection failed and which setting to check, without its value."""
    match error:
        case exceptions.AuthenticationError() | exceptions.ProbableAuthenticationError():
            return "the login of AMQP_URL is refused: its user or password is wrong"
        case exceptions.ConnectionNotAllowed() | exceptions.InvalidFrameError():
            # aiormq does not expect a refusal in answer to Connection.Open, which names the vhost.
            return "the vhost of AMQP_URL is missing or not its user's: run nexus-topology apply"
        case _:
            return f"not reachable: {type(error).__name__}"
