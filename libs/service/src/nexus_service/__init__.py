"""What all services share: settings, logs, probes, loops, shutdown and its command line."""
