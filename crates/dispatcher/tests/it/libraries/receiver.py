"""A receiver as somebody would write it with the official library for Python.

PUT a secret to a path; then a POST to it is answered with 204 if the library accepts the delivery, and
with 401 if not. Without a secret, 503. The first line that it prints is its port.
"""

import http.server

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

secrets = {}


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        secrets[self.path] = self.body().decode()
        self.answer(204)

    def do_POST(self):
        body = self.body()
        if self.path not in secrets:
            return self.answer(503)
        try:
            Webhook(secrets[self.path]).verify(body, dict(self.headers))
        except WebhookVerificationError as error:
            return self.answer(401, str(error))
        self.answer(204)

    def body(self):
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, status, text=""):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
