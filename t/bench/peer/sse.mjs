// What a team writes when it needs events and has Node: an endpoint for event
// streams that is fed by PUBLISH.  One subscription for each channel, a frame
// made once, no history; ioredis as everybody has it.
//
//     node sse.mjs PORT REDIS-PORT       GET /sse/NAME

import http from "node:http";
import Redis from "ioredis";

const [port, redisPort] = process.argv.slice(2).map(Number);
const redis = new Redis({ host: "127.0.0.1", port: redisPort });
const channels = new Map();             // name: Set of responses
let id = 0;

redis.on("message", (name, text) => {
    const clients = channels.get(name);
    if (clients === undefined) {
        return;
    }

    const lines = text.split("\n").map((line) => `data: ${line}\n`).join("");
    const frame = `id: ${++id}\n${lines}\n`;

    for (const response of clients) {
        response.write(frame);
    }
});

function leave(name, response) {
    const clients = channels.get(name);
    clients.delete(response);
    if (clients.size === 0) {
        channels.delete(name);
        redis.unsubscribe(name);
    }
}

const server = http.createServer((request, response) => {
    const name = /^\/sse\/(\w+)$/.exec(request.url)?.[1];
    if (name === undefined) {
        response.writeHead(404).end();
        return;
    }

    response.writeHead(200, {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache",
    });
    response.write("retry: 2000\n\n");

    if (!channels.has(name)) {
        channels.set(name, new Set());
        redis.subscribe(name);
    }

    channels.get(name).add(response);
    response.on("close", () => leave(name, response));
});

server.requestTimeout = 0;
server.listen(port, "127.0.0.1", 4096);
