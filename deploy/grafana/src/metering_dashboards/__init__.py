"""The Grafana dashboards, one module each; `metering-dashboards` writes them as JSON."""
