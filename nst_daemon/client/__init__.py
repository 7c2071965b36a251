"""The Python client of the REST API: submit pictures to a daemon on this or another machine, and fetch the results.

It needs the extra `client`, and loads neither torch nor the server.
"""

from nst_daemon.client.api import Client
from nst_daemon.client.transport import ApiError

__all__ = ["ApiError", "Client"]
