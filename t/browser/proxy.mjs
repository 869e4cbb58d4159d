/*
 * An HTTP proxy before nginx that sees every request, and can treat streams
 * as some proxies do.
 *
 *     const proxy = await Proxy.start();
 *     proxy.url
 *     proxy.streams = "pass"      as nginx has them
 *                     "refuse"    502
 *                     "hold"      the request is taken, nothing comes back
 *                     "buffer"    headers pass, the body waits for the end
 *     proxy.answer = (request) => ({ status, headers }) | undefined
 *                                 instead of asking nginx, for polls
 *     proxy.log                   { method, url, stream, etag, status, at,
 *                                   open }, of what is no file
 *     proxy.polls()  proxy.opens()     the GETs that are none, or streams
 *     proxy.open()                how many are under way
 *     await proxy.stop()
 */

import { createServer, request as ask } from "node:http";
import { url as behind } from "./harness.mjs";

export class Proxy {
    constructor() {
        this.log = [];
        this.streams = "pass";
        this.answer = () => undefined;
    }

    static async start() {
        const self = new Proxy();
        self.server = createServer((request, response) => {
            self.serve(request, response);
        });
        await new Promise((resolve) => self.server.listen(0, "127.0.0.1",
                                                          resolve));
        self.url = `http://127.0.0.1:${self.server.address().port}`;
        return self;
    }

    serve(request, response) {
        const { method, url, headers } = request;
        const stream = /text\/event-stream/.test(headers.accept ?? "");
        const entry = { method, url, stream, at: performance.now(),
                        etag: headers["if-none-match"] ?? "", open: true };
        if (/^\/(rt|slow|many|stream|pub)\//.test(url)) {
            this.log.push(entry);
        }
        response.on("close", () => { entry.open = false; });
        const own = stream ? (this.streams === "refuse" && { status: 502 })
            : this.answer(request);
        if (own) {
            entry.status = own.status;
            response.writeHead(own.status, own.headers ?? {}).end();
            return;
        }
        if (stream && this.streams === "hold") {
            return;
        }
        const call = ask(behind + url, { method, headers, agent: false });
        call.on("response", (answer) => {
            entry.status = answer.statusCode;
            response.writeHead(answer.statusCode, answer.headers);
            if (stream && this.streams === "buffer") {
                response.flushHeaders();
                answer.resume();
                return;
            }
            if (stream) {
                response.flushHeaders();
            }
            answer.pipe(response);
            answer.on("error", () => response.destroy());
        });
        call.on("error", () => response.destroy());
        response.on("close", () => call.destroy());
        call.end();
    }

    polls() {
        return this.log.filter(({ method, stream }) => method === "GET"
            && !stream);
    }

    opens() {
        return this.log.filter(({ stream }) => stream);
    }

    open() {
        return this.log.filter(({ open }) => open).length;
    }

    async stop() {
        this.server.closeAllConnections();
        await new Promise((resolve) => this.server.close(resolve));
    }
}
