"""Whose account pays for a user's runs: SQL that several statements share. Pure.

A user's account at a time is that of their latest assignment by then, of equal ones that of the
highest revision. Before the first one, and for most users always, it is their own, with the same
id. `user_id` of `billing_accounts` and of `usage_reports` is the account's id: the release before
this one reads it by that name.
"""


def assigned_at(event: str) -> str:
    """Return the join of an event's assignment, named ``assigned``, if its user has one by then.

    ``coalesce(assigned.account_id, event.user_id)`` is the event's account.
    """
    return f"""LEFT JOIN LATERAL (
       SELECT account_id FROM account_assignments
        WHERE user_id = {event}.user_id AND since <= {event}.occurred_at
        ORDER BY since DESC, revision DESC LIMIT 1) assigned ON true"""  # noqa: S608 - no input


def times_of(user: str) -> str:
    """Return the times in which a user had one account, without gaps: each ends before ``until``.

    An assignment that another one from the same time on overruled has an empty time.
    """
    return f"""(
       SELECT account_id, since, lead(since, 1, 'infinity') OVER (ORDER BY since, revision) AS until
         FROM (SELECT account_id, since, revision FROM account_assignments WHERE user_id = {user}
                UNION ALL SELECT {user}, '-infinity', 0) a)"""  # noqa: S608 - no input
