// A receiver as somebody would write it with the official library for Node.js.
//
// PUT a secret to a path; then a POST to it is answered with 204 if the library accepts the delivery, and
// with 401 if not. Without a secret, 503. The first line that it prints is its port.
"use strict";

const http = require("node:http");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

const secrets = new Map();

function answer(request, body) {
  if (request.method === "PUT") {
    secrets.set(request.url, body.toString());
    return [204];
  }
  if (!secrets.has(request.url)) return [503];
  try {
    new Webhook(secrets.get(request.url)).verify(body, request.headers);
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    return [401, error.message];
  }
  return [204];
}

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const [status, text] = answer(request, Buffer.concat(chunks));
  response.writeHead(status).end(text);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
