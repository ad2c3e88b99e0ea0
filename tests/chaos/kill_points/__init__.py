"""SIGKILL between every two steps of a service: nothing is lost, nothing is counted twice.

The services are real processes with no hook for tests. A step is held from outside:

- before a commit, by a lock that the test holds on the table the transaction writes to;
- before something reaches the broker or Stripe, by a proxy that holds what the service sends;
- before its confirm or answer arrives, by the same proxy holding the other direction.

The database (a waiting statement, a row), Stripe, a queue or a metric shows that the step is
reached. Then the process is killed, the bytes that the proxy still holds are dropped, and the
service is started again. Waits that a crash makes necessary, such as a lease, are shortened by
moving their time back in the database.
"""
