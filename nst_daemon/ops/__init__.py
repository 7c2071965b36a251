"""What an operator sees: logs, notifications to systemd, the doctor."""
