"""RabbitMQ: queues, consumers, dead letters, retry tiers, alarms."""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section

NAME: Final = "broker"
TITLE: Final = "Metering: broker"
DESCRIPTION: Final = "The queues of the vhost metering, and how the broker itself is."

_QUEUES = Section(
    "Queues",
    (
        Panel(
            "Messages in work queues",
            "Those in hand included. A queue that grows has a consumer that is too slow or stuck.",
            "short",
            (Query("queue:work_messages:sum", "{{queue}}"),),
            "nosuccess",
        ),
        Panel(
            "Consumers",
            "Of the reporter's queue all but one stand by. 0 is on purpose only while the circuit"
            " is open or a flood has stopped the queue.",
            "short",
            (
                Query(
                    "sum by (queue) (rabbitmq_detailed_queue_consumers"
                    '{queue!~".+\\\\.dlq|retry\\\\..+|unroutable"})',
                    "{{queue}}",
                ),
            ),
            "queuewithoutconsumer",
        ),
        Panel(
            "Dead letters",
            "Each waits for a person.",
            "short",
            (Query("queue:dead_letters:sum", "{{queue}}"),),
            "deadletterspresent",
        ),
        Panel(
            "Stopped by a flood",
            "1 while a queue is not consumed because too much of it was dead-lettered: it waits for"
            " a person to resume it.",
            "short",
            (Query("queue:consumption_stopped:max", "{{queue}}"),),
            "consumptionstopped",
        ),
        Panel(
            "Sources held back",
            "Publishers of which too much was dead-lettered: their further dead letters wait in the"
            " longest tier for a person to resume them.",
            "short",
            (Query("queue:sources_held_back:max", "{{queue}}"),),
            "publisherheldback",
        ),
        Panel(
            "Waiting in retry tiers",
            "Copies that come back by themselves after the tier's time.",
            "short",
            (
                Query(
                    'sum by (queue) (rabbitmq_detailed_queue_messages{queue=~"retry\\\\..+"})',
                    "{{queue}}",
                ),
            ),
            "stripe-outage",
        ),
        Panel(
            "Overdue in retry tiers",
            "Messages that wait in a tier beyond what came in within its wait. Above 0 for long:"
            " one of them has no end of its wait, and blocks all behind it.",
            "short",
            (
                Query(
                    'clamp_min(sum by (queue) (rabbitmq_detailed_queue_messages{queue=~"retry.+"})'
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
            "In no state",
            "Messages that the broker is dead-lettering by itself and that have not arrived. Above"
            " 0 for long: their destination is missing or refuses them.",
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
            "By service and cause; each is tried again. unroutable: a queue is missing. timeout:"
            " the broker is in alarm or stuck. other: it is away.",
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
            "expired are returns from retry tiers, all is well; delivery_limit are messages that"
            " were delivered too often.",
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
            "Used by the node; at its limit the memory alarm begins.",
            "bytes",
            (
                Query("max(rabbitmq_process_resident_memory_bytes)", "used"),
                Query("max(rabbitmq_resident_memory_limit_bytes)", "limit"),
            ),
            "brokeralarm",
        ),
        Panel(
            "Free disk",
            "At the limit the disk alarm begins.",
            "bytes",
            (
                Query("min(rabbitmq_disk_space_available_bytes)", "free"),
                Query("max(rabbitmq_disk_space_available_limit_bytes)", "limit"),
            ),
            "brokeralarm",
        ),
        Panel(
            "Connections",
            "A service has two or more: one to publish, the others to consume.",
            "short",
            (Query("sum(rabbitmq_connections)", "connections"),),
            "targetdown",
        ),
    ),
)

SECTIONS: Final = (_QUEUES, _NODE)
