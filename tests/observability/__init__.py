"""What operators see, checked: rules, dashboards, health, and all of it live."""
