/*
 * What the browser tests have in common: results as TAP lines, deadlines,
 * Redis by its own redis-cli, nginx by signals, Chromium by playwright-core.
 *
 * RT::Browser starts them for a test, which tells by the environment:
 * RT_URL, RT_REDIS_PORT, RT_NGINX_PID, RT_DIR (for screenshots), RT_SCALE.
 */

import { spawn } from "node:child_process";
import { request } from "node:http";
import { readFileSync, readdirSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { chromium } from "playwright-core";

export const url = process.env.RT_URL;
export const dir = process.env.RT_DIR;
const redisPort = process.env.RT_REDIS_PORT;
const master = Number(process.env.RT_NGINX_PID);
const scale = Number(process.env.RT_SCALE || 1);


/* results */

export function ok(value, name, detail = "") {
    const line = name.replace(/[\r\n#]/g, " ");
    console.log(`${value ? "ok" : "not ok"} - ${line}`);
    if (!value && detail) {
        console.log(String(detail).replace(/^/gm, "# "));
    }
    return Boolean(value);
}

export function is(got, expected, name) {
    return ok(isDeepStrictEqual(got, expected), name,
              `     got: ${JSON.stringify(got)?.slice(0, 600)}\n`
              + `expected: ${JSON.stringify(expected)?.slice(0, 600)}`);
}


/* polls until the condition holds; its value, or undefined at the deadline */
export async function until(condition, seconds = 10) {
    const end = Date.now() + seconds * 1000 * scale;
    for (;;) {
        const value = await condition();
        if (value) {
            return value;
        }
        if (Date.now() >= end) {
            return undefined;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

export async function arrives(condition, name, seconds = 10) {
    const value = await until(condition, seconds);
    ok(value, value ? name : `${name} (not within ${seconds} s)`);
    return value;
}


/* Redis: the last argument goes in by standard input, byte for byte */

export function redis(...args) {
    const last = args.pop();
    return new Promise((resolve, reject) => {
        const child = spawn("redis-cli", ["-p", redisPort, "-x", ...args],
                            { stdio: ["pipe", "pipe", "inherit"] });
        let out = "";
        child.stdout.on("data", (chunk) => { out += chunk; });
        child.on("error", reject);
        child.on("close", (code) => (code === 0 ? resolve(out.trim())
            : reject(new Error(`redis-cli: ${code}`))));
        child.stdin.end(last);
    });
}

/* on a connection of its own: a kept one ends when its worker does */
function ask(method, path, body = "") {
    return new Promise((resolve, reject) => {
        const call = request(url + path, { method, agent: false }, (response) => {
            let text = "";
            response.on("data", (chunk) => { text += chunk; });
            response.on("error", reject);
            response.on("end", () => resolve({ status: response.statusCode,
                                               text }));
        });
        call.setTimeout(10000 * scale, () => call.destroy(
            new Error(`${path}: no answer`)));
        call.on("error", reject);
        call.end(body);
    });
}

export async function publishByHttp(path, body) {
    const answer = await ask("POST", path, body);
    if (answer.status !== 202) {
        throw new Error(`${path}: ${answer.status} ${answer.text}`);
    }
    return JSON.parse(answer.text);
}

export async function status(name) {
    const { hubs } = JSON.parse((await ask("GET", "/rt-status")).text);
    return hubs.find((hub) => hub.name === name);
}

export async function feedIsLive() {
    return until(async () => {
        try {
            return (await status("app")).feed.state === "live";
        } catch {
            return false;
        }
    });
}


/* nginx */

function cmdline(pid) {
    try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8");
    } catch {
        return "";
    }
}

function parent(pid) {
    try {
        const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
        return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
    } catch {
        return 0;
    }
}

/* not those that are shutting down */
export function workers() {
    return readdirSync("/proc").filter((pid) => /^\d+$/.test(pid)
            && parent(pid) === master
            && /^nginx: worker process\0*$/.test(cmdline(pid)))
        .map(Number);
}

async function replaced(old) {
    const done = await until(() => {
        const now = workers();
        return now.length >= old.length
            && !now.some((pid) => old.includes(pid));
    });
    if (!done) {
        throw new Error("the workers are not replaced");
    }
}

export async function reload() {
    const old = workers();
    process.kill(master, "SIGHUP");
    await replaced(old);
}

export async function killWorkers() {
    const old = workers();
    for (const pid of old) {
        process.kill(pid, "SIGKILL");
    }
    await replaced(old);
}


/* the browser; complaints of the pages are gathered in complaints */

export const complaints = [];
let browser;

export async function start() {
    browser = await chromium.launch({
        executablePath: process.env.RT_CHROMIUM || "/usr/bin/chromium",
        headless: true,
        args: ["--no-sandbox", "--disable-gpu", "--disable-quic",
               "--no-first-run", "--disable-background-networking",
               "--disable-component-update", "--disable-sync"],
    });
}

export async function stop() {
    await browser?.close();
}

/* base: another server than nginx itself */
export async function open(path, { base = url, ...options } = {}) {
    const page = await browser.newPage({
        viewport: { width: 1440, height: 900 }, ...options,
    });
    page.setDefaultTimeout(15000 * scale);
    page.on("console", (message) => {
        if (["error", "warning"].includes(message.type())) {
            complaints.push(message.text());
        }
    });
    page.on("pageerror", (error) => complaints.push(String(error)));
    await page.goto(base + path);
    return page;
}


/*
 * An EventSource of a page, with all that came of it in the page's own
 * memory: [type, data, id], types open, error, message and those named.
 */

export class Source {
    constructor(page, name) {
        this.page = page;
        this.name = name;
    }

    static count = 0;

    static async open(page, path, types = []) {
        const name = `source${++Source.count}`;
        await page.evaluate(([name, path, types]) => {
            const source = new EventSource(path);
            const events = [];
            window[name] = { source, events };
            source.onopen = () => events.push(["open"]);
            source.onerror = () => events.push(["error"]);
            for (const type of ["message", "rt.gap", ...types]) {
                source.addEventListener(type, (event) => events.push(
                    [type, event.data, event.lastEventId]));
            }
        }, [name, path, types]);
        const self = new Source(page, name);
        if (!await until(() => self.has("open"))) {
            throw new Error(`${path} does not open`);
        }
        return self;
    }

    events() {
        return this.page.evaluate((name) => window[name].events, this.name);
    }

    async data(type = "message") {
        return (await this.events()).filter(([t]) => t === type)
            .map(([, data]) => data);
    }

    async has(type, n = 1) {
        return (await this.events()).filter(([t]) => t === type).length >= n;
    }

    async lastId() {
        return (await this.events()).at(-1)?.[2];
    }

    async close() {
        await this.page.evaluate((name) => {
            window[name].source.close();
            delete window[name];
        }, this.name);
    }
}

/* a poll by the page's own fetch: status, headers, body as base64 */
export function poll(page, path, etag = "") {
    return page.evaluate(async ([path, etag]) => {
        const response = await fetch(path, {
            headers: etag ? { "If-None-Match": etag } : {},
            cache: "no-store",
        });
        const bytes = new Uint8Array(await response.arrayBuffer());
        let binary = "";
        for (const byte of bytes) {
            binary += String.fromCharCode(byte);
        }
        return { status: response.status,
                 etag: response.headers.get("ETag"),
                 interval: response.headers.get("RT-Poll-Interval"),
                 advice: response.headers.get("RT-Advice"),
                 type: response.headers.get("Content-Type"),
                 body: btoa(binary) };
    }, [path, etag]);
}

export function cursor(etag) {
    return etag.replace(/^W\//, "").replaceAll('"', "");
}


/* viewers: open streams of others, straight to nginx */
export class Viewers {
    static async open(path, n) {
        const self = new Viewers();
        self.calls = [];
        await Promise.all(Array.from({ length: n }, () => new Promise(
            (resolve, reject) => {
                const call = request(url + path, { agent: false,
                    headers: { Accept: "text/event-stream" } });
                call.on("response", (answer) => {
                    answer.resume();
                    answer.on("error", () => {});
                    resolve();
                });
                call.on("error", reject);
                self.calls.push(call);
                call.end();
            })));
        return self;
    }

    /* all but so many */
    leave(n = 0) {
        for (const call of this.calls.splice(n)) {
            call.on("error", () => {});
            call.destroy();
        }
    }
}
