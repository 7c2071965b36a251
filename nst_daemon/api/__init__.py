"""The Python API, without a daemon: it reads no configuration file and no variables."""
