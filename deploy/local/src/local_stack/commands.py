"""The commands: a stack in the background, identified by its folder."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from local_stack.catalogue import EXAMPLE_PLANS, StackOptions
from local_stack.demo_users import add_demo_users
from local_stack.directory_lock import DirectoryInUseError, DirectoryLock
from local_stack.errors import LocalStackError
from local_stack.identities import ProcessIdentity, await_exit
from local_stack.location import return_data
from local_stack.processes import Child, ChildDiedError, exit_on_sigterm
from local_stack.publishing import publish, tool_executed, user_created
from local_stack.record import Record
from local_stack.sample_dead_letter import SampleDeadLetter
from local_stack.stack import Stack
from local_stack.usage_page import MODULE, PageUser, UsagePage, add_user

Say = Callable[[str], None]

_START_SECONDS = 600.0
_STOP_SECONDS = 180.0
_WATCH_SECONDS = 1.0

# The local Stripe shows at once what it counts, so nobody has to wait an hour for its sums.
_SUMMARY_LAG = {"STRIPE_SUMMARY_LAG_SECONDS": "10"}


def up(directory: Path, arguments: Sequence[str], say: Say) -> int:
    """Start a stack in the background and return when it is ready; 1 if it is not.

    Args:
        directory: Where it keeps its data.
        arguments: The further arguments of ``supervise``.
        say: Called with each line of output.

    Raises:
        ChildNotReadyError: If it was not ready in time; it has been stopped again.
    """
    if (holder := _holder(directory)) is not None:
        say(f"a stack is running here already, as process {holder}; `make down` stops it")
        return 1
    Record.delete(directory)
    log = directory / "supervisor.log"
    log.unlink(missing_ok=True)
    supervisor = Child.start(
        "the stack",
        [
            *(sys.executable, "-m", "local_stack", "--directory", str(directory)),
            *("supervise", *arguments),
        ],
        log=log,
        env=os.environ,
    )
    try:
        with exit_on_sigterm():
            return _follow(supervisor, directory, say)
    except BaseException:
        supervisor.stop(grace=_STOP_SECONDS)
        raise


def supervise(
    directory: Path, tier_scale: float, component: Path | None, plans: Path, say: Say
) -> NoReturn:
    """Run a stack until SIGTERM, and log each part that ends by itself.

    With a built ``component`` there is a page with it. By the committed ``plans``, demo users have
    a month of usage there.
    """
    # A Ctrl-C at the terminal is for the command in the foreground alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if component is not None and not (component / MODULE).is_file():
        say(f"going on without the usage page: no {MODULE} in {component}; `make component`")
        component = None
    options = StackOptions(
        tier_scale=tier_scale,
        standard_ports=True,
        monitored=True,
        service_environment={"usage-ingest": _SUMMARY_LAG, "stripe-reporter": _SUMMARY_LAG},
        events_api=True,
        usage_api=True,
        plans_file=plans,
        component=component,
    )
    with exit_on_sigterm(), Stack.start(directory, options, say) as stack:
        if stack.page is not None:
            _fill(stack, stack.page, say, demo=plans == EXAMPLE_PLANS)
        Record.of(stack, SampleDeadLetter.publish(stack), directory).write(directory)
        try:
            _watch(stack, say)
        finally:
            Record.delete(directory)


def down(directory: Path, say: Say) -> int:
    """Stop the stack and return when everything has ended; 1 if it did not."""
    if (holder := _holder(directory)) is None:
        say("no stack is running here")
        return 0
    supervisor = ProcessIdentity.of(holder)
    if supervisor is not None:
        say("stopping")
        supervisor.send(signal.SIGTERM)
        if not await_exit([supervisor], seconds=_STOP_SECONDS):
            say(f"process {holder} has not ended after {_STOP_SECONDS:.0f} s")
            return 1
    say("stopped")
    return 0


def status(directory: Path, say: Say) -> int:
    """Print the addresses and the parts that have died; 1 unless everything runs."""
    holder = _holder(directory)
    record = Record.read(directory)
    if holder is None:
        say("no stack is running here")
        return 1
    if record is None:
        say(f"a stack is starting or stopping, as process {holder}")
        return 1
    say(record.page())
    for name in record.dead:
        say(f"{name} has died; `make down` stops the rest")
    return 1 if record.dead else 0


def publish_example(directory: Path, say: Say) -> int:
    """Publish a fresh user and a tool run of theirs; 1 where no stack runs.

    Raises:
        NotPublishedError: If the broker did not confirm them.
    """
    record = Record.read(directory)
    if record is None or _holder(directory) is None:
        say("no stack is running here; `make up` starts one")
        return 1
    user, now = uuid.uuid4(), datetime.now(UTC)
    run = tool_executed(user, now)
    publish(record.publish_to, [user_created(user, now), run])
    say(f"published user.created and tool.executed {run.id} of user {user}")
    say(f"within about 20 s the local Stripe has counted it: curl -s {record.sums}")
    name = f"User {user}"
    if add_user(directory, PageUser(user, name)):
        say(f"the usage page, loaded again, has them as {name}")
    return 0


def run(directory: Path, command: Sequence[str], say: Say) -> int:
    """Run an operator's command with the settings of the stack; return its exit code.

    Args:
        directory: Where the stack keeps its data.
        command: A program of ``OPERATORS_PROGRAMS``, and its arguments.
        say: Called with each line of output.
    """
    record = Record.read(directory)
    if record is None or _holder(directory) is None:
        say("no stack is running here; `make up` starts one")
        return 1
    settings = record.commands.get(" ".join(command[:2])) or record.commands[command[0]]
    # A file of plans of one's own can be tried out; everything else is the stack's.
    own = {name: os.environ[name] for name in ("PLANS_FILE",) if name in os.environ}
    program = Path(sys.executable).with_name(command[0])
    return subprocess.call([program, *command[1:]], env={**settings, **own})  # noqa: S603 - one of this project's


def _holder(directory: Path) -> int | None:
    """Find the process that runs a stack in ``directory``; end what a killed one left."""
    try:
        lock = DirectoryLock.acquire(directory)
    except DirectoryInUseError as held:
        return held.holder
    return_data(directory / "postgres")
    lock.release()
    return None


def _follow(supervisor: Child, directory: Path, say: Say) -> int:
    """Print the supervisor's output until its stack is ready or it has ended."""
    with supervisor.log.open(encoding="utf-8") as lines:

        def repeat() -> bool:
            for line in lines:
                say(line.rstrip("\n"))
            return Record.read(directory) is not None

        try:
            supervisor.wait_until(repeat, seconds=_START_SECONDS)
        except ChildDiedError:
            repeat()
            return 1
        repeat()
    record = Record.read(directory)
    if record is None:
        return 1
    say(record.page())
    return 0


def _fill(stack: Stack, page: UsagePage, say: Say, *, demo: bool) -> None:
    """Give the page its users; without them it stays empty, and the stack goes on."""
    page.sign_in(stack.usage_api_url, ())
    if not demo:
        return
    try:
        users = add_demo_users(stack)
    except (LocalStackError, OSError) as error:
        say(f"going on without demo users on the usage page: {error}")
        return
    page.sign_in(stack.usage_api_url, users)
    say(f"{len(users)} demo users have published a month of usage")


def _watch(stack: Stack, say: Say) -> NoReturn:
    """Wait for SIGTERM; say so if a part ends, and leave the others running."""
    said = ""
    while True:
        time.sleep(_WATCH_SECONDS)
        try:
            stack.check()
        except ChildDiedError as died:
            if str(died) != said:
                said = str(died)
                say(said)
