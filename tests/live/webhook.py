"""A web server that appends what it is sent to a file: `python3 webhook.py PORT FILE`."""

import http.server
import sys
from pathlib import Path


class Keeper(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Append the body to the file."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with Path(sys.argv[2]).open("ab") as file:
            file.write(body + b"\n")
        self.send_response(204)
        self.end_headers()


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Keeper).serve_forever()
