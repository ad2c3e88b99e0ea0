"""Faults on the running stack: kill points, outages, and runs of chaos."""
