"""The service under a live systemd: `make live`, outside of `make test`."""
