"""The events API: a process that publishes events which come by HTTP."""
