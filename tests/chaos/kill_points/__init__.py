"""SIGKILL between every pair of a service's steps: nothing is lost, nothing counted twice.

The services are real processes with no hook for tests. A step is held open from outside:

- before a commit, by a lock that the test holds on the table the transaction writes to;
- before something reaches the broker or Stripe, by a proxy that holds what the service sends;
- before its confirm or answer comes back, by the same proxy holding the other way.

That the step is reached is seen in the database (a waiting statement, a row), at Stripe, in a queue
or in a metric; then the process is killed, what the proxy still holds of it is thrown away, and
the service is started again. Waits that a crash makes necessary, such as a lease, are shortened by
moving their time back in the database.
"""
