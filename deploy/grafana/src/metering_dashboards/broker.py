"""RabbitMQ: queues, consumers, dead letters, retry tiers, alarms."""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section

NAME: Final = "broker"
TITLE: Final = "Metering: broker"
DESCRIPTION: Final = "The queues of the vhost metering, and the state of the broker."

_QUEUES = Section(
    "Queues",
    (
        Panel(
            "Messages in work queues",
            "Unacknowledged ones included. A queue grows if its consumer is too slow or stuck.",
            "short",
            (Query("queue:work_messages:sum", "{{queue}}"),),
            "nosuccess",
        ),
        Panel(
            "Consumers",
            "Of the reporter's queue all but one stand by. 0 is intended only while a circuit"
            " breaker is open or too many dead letters have stopped the queue.",
            "short",
            (Query("queue:work_consumers:sum", "{{queue}}"),),
            "queuewithoutconsumer",
        ),
        Panel(
            "Dead letters",
            "Each needs an operator.",
            "short",
            (Query("queue:dead_letters:sum", "{{queue}}"),),
            "deadletterspresent",
        ),
        Panel(
            "Consumption stopped",
            "1 while a queue is not consumed because too much of it was dead-lettered. An operator"
            " resumes it.",
            "short",
            (Query("queue:consumption_stopped:max", "{{queue}}"),),
            "consumptionstopped",
        ),
        Panel(
            "Sources held back",
            "Sources of which too much was dead-lettered. Their further dead letters wait in the"
            " longest tier until an operator resumes them.",
            "short",
            (Query("queue:sources_held_back:max", "{{queue}}"),),
            "sourceheldback",
        ),
        Panel(
            "Waiting in retry tiers",
            "Copies that return by themselves after the tier's wait.",
            "short",
            (Query("queue:retry_messages:sum", "{{queue}}"),),
            "stripe-outage",
        ),
        Panel(
            "Overdue in retry tiers",
            "Messages that wait in a tier beyond what came in within its wait. If it stays above 0,"
            " one of them has no wait and blocks all behind it.",
            "short",
            (
                Query(
                    "clamp_min(queue:retry_messages:sum"
                    " - on (queue) queue:retried_within_wait:increase, 0)",
                    "{{queue}}",
                ),
            ),
            "retrytierblocked",
        ),
        Panel(
            "Unroutable",
            "Messages that had no queue to go to, kept in the queue unroutable.",
            "short",
            (
                Query(
                    'sum by (queue) (rabbitmq_detailed_queue_messages{queue="unroutable"})',
                    "{{queue}}",
                ),
            ),
            "messagesunroutable",
        ),
        Panel(
            "Being dead-lettered",
            "Messages that the broker is dead-lettering and that have not arrived. If it stays"
            " above 0, their destination is missing or refuses them.",
            "short",
            (
                Query(
                    "sum by (queue) (rabbitmq_detailed_queue_messages"
                    " - rabbitmq_detailed_queue_messages_ready"
                    " - rabbitmq_detailed_queue_messages_unacked)",
                    "{{queue}}",
                ),
            ),
            "deadletteringstuck",
        ),
    ),
)

_NODE = Section(
    "Node",
    (
        Panel(
            "Messages published",
            "Received from publishers, and confirmed to them.",
            "ops",
            (
                Query(
                    "sum(rate(rabbitmq_global_messages_received_total[$__rate_interval]))",
                    "received",
                ),
                Query(
                    "sum(rate(rabbitmq_global_messages_confirmed_total[$__rate_interval]))",
                    "confirmed",
                ),
            ),
            "brokeralarm",
        ),
        Panel(
            "Publishes not confirmed",
            "By service and cause; each is retried. unroutable: a queue is missing. timeout: the"
            " broker is in alarm or stuck. other: it is unreachable.",
            "ops",
            (
                Query(
                    'sum by (job, cause) (rate({__name__=~".+_publishes_failed_total"}'
                    "[$__rate_interval]))",
                    "{{job}} {{cause}}",
                ),
            ),
            "messagesunroutable",
        ),
        Panel(
            "Dead-lettered by the broker",
            "expired are returns from retry tiers, which is normal; delivery_limit are messages"
            " that were delivered too often.",
            "ops",
            tuple(
                Query(
                    "sum(rate(rabbitmq_global_messages_dead_lettered_"
                    f"{why}_total[$__rate_interval]))",
                    why,
                )
                for why in ("expired", "delivery_limit", "rejected")
            ),
            "poison-messages",
        ),
        Panel(
            "Alarms",
            "1 while the broker takes no messages: memory or disk.",
            "short",
            (
                Query("max(rabbitmq_alarms_memory_used_watermark)", "memory"),
                Query("max(rabbitmq_alarms_free_disk_space_watermark)", "disk"),
            ),
            "brokeralarm",
        ),
        Panel(
            "Memory",
            "Used by the node. At its limit the memory alarm is set.",
            "bytes",
            (
                Query("max(rabbitmq_process_resident_memory_bytes)", "used"),
                Query("max(rabbitmq_resident_memory_limit_bytes)", "limit"),
            ),
            "brokeralarm",
        ),
        Panel(
            "Free disk",
            "At the limit the disk alarm is set.",
            "bytes",
            (
                Query("min(rabbitmq_disk_space_available_bytes)", "free"),
                Query("max(rabbitmq_disk_space_available_limit_bytes)", "limit"),
            ),
            "brokeralarm",
        ),
        Panel(
            "Connections",
            "Each service has at least two: one to publish, the others to consume.",
            "short",
            (Query("sum(rabbitmq_connections)", "connections"),),
            "targetdown",
        ),
    ),
)

SECTIONS: Final = (_QUEUES, _NODE)
