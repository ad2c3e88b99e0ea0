"""What every service is made of: settings, logs, probes, loops, shutdown and its command line."""
