/*
 * The demo page of ngx_rt: one channel by polling, by an event stream, and as
 * the status shows it.  What comes in is text and goes to the page as text.
 */

import { subscribe } from "./rt.js";

const hubs = {
    app: { subscribe: "/rt/", publish: "/publish?channel=" },
    mem: { subscribe: "/mem/", publish: "/mem-publish?channel=" },
};

const ROWS = 50;            /* kept in each list */
const TICKS = 60;           /* kept in each strip */
const SHOWN = 2000;         /* characters of a message that are shown */
const STATUS_EVERY = 2000;  /* ms */
const TIMEOUT = 10000;      /* ms, of one request */

const $ = (id) => document.getElementById(id);
const encoder = new TextEncoder();

/* ignoreBOM: a message may begin with one, it is part of the data */
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

const current = { hub: "app", channel: "", sent: null, server: null };


/* small things */

function size(bytes) {
    if (bytes < 1000) {
        return `${bytes} B`;
    }
    const units = ["kB", "MB", "GB", "TB"];
    let n = bytes, unit = -1;
    while (n >= 1000 && unit < units.length - 1) {
        n /= 1000;
        unit++;
    }
    return `${n < 10 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

function span(ms) {
    return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function clock(date) {
    const two = (n) => String(n).padStart(2, "0");
    return `${two(date.getHours())}:${two(date.getMinutes())}:`
        + `${two(date.getSeconds())}.`
        + String(date.getMilliseconds()).padStart(3, "0");
}

/* control bytes by number, so that a NUL or an escape is seen */
function visible(text) {
    const cut = text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
    return cut.replace(/[\0-\x08\x0b-\x1f\x7f\ufeff]/g, (c) => "\u27e8"
        + c.charCodeAt(0).toString(16).padStart(2, "0") + "\u27e9");
}

/* nginx's $arg_channel is what the client sent, not decoded, so a colon goes
 * as it is; anything else that needs encoding is no channel of the demo */
function channelText(channel) {
    return encodeURIComponent(channel).replaceAll("%3A", ":");
}

function set(id, text) {
    const node = $(id);
    if (node.textContent !== text) {
        node.textContent = text;
    }
}

function pill(id, text, tone = "") {
    set(id, text);
    $(id).dataset.tone = tone;
}

function row(id, { tag = "", tone = "", text, meta = "" }) {
    const item = $("row").content.firstElementChild.cloneNode(true);
    const now = new Date();
    const time = item.querySelector("time");
    time.textContent = clock(now);
    time.dateTime = now.toISOString();
    const label = item.querySelector(".tag");
    label.textContent = tag;
    label.dataset.tone = tone;
    item.querySelector(".meta").textContent = meta;
    item.querySelector("bdi").textContent = visible(text);
    item.classList.add("fresh");
    const list = $(id);
    list.prepend(item);
    while (list.childElementCount > ROWS) {
        list.lastElementChild.remove();
    }
}

function tick(id, kind, label) {
    const strip = $(id);
    const mark = document.createElement("i");
    mark.dataset.kind = kind;
    strip.append(mark);
    while (strip.childElementCount > TICKS) {
        strip.firstElementChild.remove();
    }
    strip.setAttribute("aria-label", label);
}

function sleep(ms, signal) {
    return new Promise((resolve) => {
        const timer = setTimeout(done, ms);
        function done() {
            clearTimeout(timer);
            signal.removeEventListener("abort", done);
            resolve();
        }
        signal.addEventListener("abort", done);
    });
}

/* exponential, from one second to thirty; jitter, so that the clients of a
 * server that comes back don't come back all at once */
function backoff(failures, least = 0) {
    const most = Math.min(30000, 1000 * 2 ** Math.min(failures - 1, 5));
    return Math.max(least, most * (0.5 + Math.random() / 2));
}

function withTimeout(signal) {
    return AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT)]);
}

/* how long after having been published from this page a message came */
function age(text) {
    const sent = current.sent;
    return sent && sent.text === text
        ? ` · after ${span(performance.now() - sent.at)}` : "";
}


/* poll: GET with If-None-Match, as often as the server advises */

class Poll {
    constructor() {
        this.running = null;
        this.clear();
    }

    clear() {
        this.etag = "";
        this.last = null;
        this.counts = { 200: 0, 304: 0 };
        this.bytes = 0;
    }

    follow(url) {
        this.stop();
        this.clear();
        this.url = url;
        $("poll-log").replaceChildren();
        $("poll-strip").replaceChildren();
        this.show();
        this.start();
    }

    start() {
        this.stop();
        this.running = new AbortController();
        this.run(this.running.signal);
    }

    stop() {
        this.running?.abort();
        this.running = null;
    }

    async run(signal) {
        let failures = 0;
        while (!signal.aborted) {
            let wait;
            try {
                wait = await this.once(signal);
                failures = 0;
                pill("poll-state", `every ${span(wait)}`, "good");
                wait *= 0.9 + Math.random() / 5;
            } catch (error) {
                if (signal.aborted) {
                    return;
                }
                wait = backoff(++failures, error.retryAfter);
                tick("poll-strip", "bad", `poll failed: ${error.message}`);
                pill("poll-state", `${error.message}, again in ${span(wait)}`,
                     "warn");
            }
            await sleep(wait, signal);
        }
    }

    /* one request; the milliseconds to the next */
    async once(signal) {
        const headers = this.etag ? { "If-None-Match": this.etag } : {};
        const response = await fetch(this.url, {
            headers, cache: "no-store", signal: withTimeout(signal),
        });
        if (![200, 204, 304].includes(response.status)) {
            const error = new Error(String(response.status));
            error.retryAfter =
                1000 * (Number(response.headers.get("Retry-After")) || 0);
            throw error;
        }
        const body = new Uint8Array(await response.arrayBuffer());
        if (signal.aborted) {
            throw new Error("stopped");
        }
        this.take(response, body);
        const advised = Number(response.headers.get("RT-Poll-Interval"));
        return 1000 * (advised > 0 ? advised : 5);
    }

    take(response, body) {
        const { status, headers } = response;
        const etag = headers.get("ETag") ?? "";
        this.counts[status] = (this.counts[status] ?? 0) + 1;
        this.bytes += body.length;
        if (status === 304) {
            tick("poll-strip", "same", "304, nothing new");
        } else if (status === 200) {
            this.message(decoder.decode(body), body.length, etag);
        }
        /* an answer without an ETag is no ground for a later 304 */
        this.etag = etag;
        set("poll-interval", headers.get("RT-Poll-Interval")
            ? `${headers.get("RT-Poll-Interval")} s` : "–");
        set("poll-advice", headers.get("RT-Advice") ?? "–");
        this.show();
    }

    message(text, bytes, etag) {
        /* while Redis is away every answer is a 200 without an ETag */
        if (etag || text !== this.last) {
            row("poll-log", { tag: etag ? "200" : "200, no ETag", text,
                              meta: size(bytes) + age(text) });
        }
        tick("poll-strip", "new", "200, a message");
        this.last = text;
    }

    show() {
        set("poll-200", String(this.counts[200]));
        set("poll-304", String(this.counts[304]));
        set("poll-bytes", size(this.bytes));
        set("poll-etag", this.etag || "–");
        $("poll-etag").title = this.etag;
        compare();
    }

    /* the cursor: the ETag without W/ and quotes */
    get cursor() {
        return this.etag.replace(/^W\//, "").replaceAll('"', "");
    }
}


/* stream: EventSource, which reconnects by itself as long as it gets a 200;
 * after any other answer it gives up, and the page takes over */

class Stream {
    constructor() {
        this.source = null;
        this.retry = null;
        this.clear();
    }

    clear() {
        this.id = "";
        this.counts = { messages: 0, gaps: 0, opens: 0 };
        this.bytes = 0;
        this.failures = 0;
    }

    follow(url) {
        this.close();
        this.clear();
        this.url = url;
        $("sse-log").replaceChildren();
        $("sse-strip").replaceChildren();
        this.show();
        this.open("", "with the latest message");
    }

    open(from, how) {
        this.close();
        set("sse-from", how);
        pill("sse-state", "connecting", "warn");
        const query = from ? `?last_event_id=${encodeURIComponent(from)}` : "";
        const source = new EventSource(this.url + query);
        this.source = source;
        source.onopen = () => this.opened();
        source.onmessage = (event) => this.message(event);
        source.addEventListener("rt.gap", (event) => this.gap(event));
        source.onerror = () => this.failed(source);
    }

    close() {
        this.source?.close();
        this.source = null;
        clearTimeout(this.retry);
        this.retry = null;
        pill("sse-state", "closed");
    }

    get closed() {
        return !this.source && !this.retry;
    }

    opened() {
        this.failures = 0;
        this.counts.opens++;
        pill("sse-state", "open", "good");
        this.show();
    }

    message(event) {
        const bytes = encoder.encode(event.data).length;
        this.counts.messages++;
        this.bytes += bytes;
        this.id = event.lastEventId;
        row("sse-log", { text: event.data,
                         meta: size(bytes) + age(event.data) });
        tick("sse-strip", "new", "a message");
        this.show();
    }

    gap(event) {
        let told = { channel: "", reason: event.data };
        try {
            told = JSON.parse(event.data);
        } catch {
            /* shown as it came */
        }
        this.counts.gaps++;
        this.id = event.lastEventId;
        row("sse-log", { tag: "gap", tone: "warn",
                         text: "messages may be missing",
                         meta: String(told.reason) });
        tick("sse-strip", "gap", `a gap: ${told.reason}`);
        this.show();
    }

    failed(source) {
        if (source !== this.source) {
            return;
        }
        if (source.readyState !== EventSource.CLOSED) {
            pill("sse-state", "reconnecting", "warn");
            return;
        }
        this.close();
        const wait = backoff(++this.failures);
        pill("sse-state", `refused, again in ${span(wait)}`, "warn");
        this.retry = setTimeout(() => {
            this.retry = null;
            this.open(this.id, this.id ? "from its last id" : "anew");
        }, wait);
    }

    show() {
        set("sse-count", String(this.counts.messages));
        set("sse-gaps", String(this.counts.gaps));
        set("sse-opens", String(this.counts.opens));
        set("sse-bytes", size(this.bytes));
        set("sse-id", this.id || "–");
        $("sse-id").title = this.id;
        compare();
    }
}


/* adaptive: rt.js chooses, this shows what and why */

class Adaptive {
    follow(url) {
        this.feed?.close();
        this.count = 0;
        this.last = "";
        $("adaptive-strip").replaceChildren();
        set("adaptive-count", "Nothing yet");
        set("adaptive-latest", "");
        this.feed = subscribe(url, (message) => this.message(message), {
            onStatus: (feed) => this.status(feed),
            onGap: ({ reason }) => tick("adaptive-strip", "gap",
                                        `a gap: ${reason}`),
        });
    }

    message({ data }) {
        this.count++;
        tick("adaptive-strip", "new", "a message");
        set("adaptive-count", `${this.count} `
            + (this.count === 1 ? "message" : "messages"));
        set("adaptive-latest", visible(data));
    }

    status({ transport, reason, interval, status }) {
        const names = { poll: "polls", sse: "streams", none: "rests" };
        pill("adaptive-state", names[transport],
             transport === "none" || reason === "advised" ? "good" : "warn");
        const every = `polls, every ${interval} s.`;
        const why = {
            "poll: advised": `Few viewers: the server advises ${every}`,
            "poll: streams are blocked": `Streams do not pass: ${every}`,
            "sse: advised": "Many viewers: the server advises a stream.",
            "sse: opening": "Many viewers: opens a stream.",
            "sse: reconnecting": "The stream was cut: opens it again.",
            "none: hidden": "The tab is hidden: asks when it is seen again.",
        }[`${transport}: ${reason}`];
        set("adaptive-why", why ?? `No answer (${reason}), asks again soon.`);
        if (!why) {
            tick("adaptive-strip", "bad", `failed: ${reason}`);
        } else if (transport === "poll" && status === 304) {
            tick("adaptive-strip", "same", "304, nothing new");
        }
    }
}


/* where poll and stream stand */

function compare() {
    const etag = poll.cursor;
    $("from-etag").disabled = !etag;
    if (!etag || !stream.id) {
        pill("cursor-state", "not both known");
    } else if (etag === stream.id) {
        pill("cursor-state", "the same place", "good");
    } else {
        pill("cursor-state", "apart");
    }
}


/* feed: a line from the status */

function showFeed(hub) {
    const { feed } = hub;
    const tones = { live: "good", embedded: "good", connecting: "warn",
                    down: "bad" };
    pill("feed-state", feed.state, tones[feed.state] ?? "");
    current.server = feed.state === "embedded" ? null : feed.server ?? null;
    const parts = [];
    if (current.server) {
        parts.push(`Redis at ${current.server}`);
    } else if (feed.state === "embedded") {
        parts.push("no Redis: shared memory only");
    }
    if (feed.state === "live" && feed.lag_ms != null) {
        parts.push(`lag ${Number(feed.lag_ms).toFixed(1)} ms`);
    }
    if (feed.reconnects) {
        parts.push(`${feed.reconnects} reconnects`);
    }
    if (feed.gaps) {
        parts.push(`${feed.gaps} gaps`);
    }
    set("feed-line", parts.join(" · ") || "–");
    const { messages, memory, polls, streams } = hub;
    set("feed-in", `${messages.in} · ${size(messages.bytes_in)}`
        + (messages.dropped ? ` · ${messages.dropped} dropped` : ""));
    set("feed-channels", String(hub.channels)
        + (hub.evicted ? ` · ${hub.evicted} evicted` : ""));
    set("feed-memory", `${size(memory.used)} of ${size(memory.size)}`);
    set("feed-polls", `${polls.hit} × 304 · ${polls.miss} answered`);
    set("feed-streams", `${streams.sse.open} open · `
        + `${streams.sse.delivered} delivered`);
    showCommand();
}

/* hubs that this nginx doesn't have are not offered */
function offer(names) {
    for (const option of $("hub").options) {
        option.disabled = option.hidden = !names.includes(option.value);
    }
}

async function watchFeed() {
    const { signal } = new AbortController();
    let failures = 0;
    for (;;) {
        let wait = STATUS_EVERY;
        try {
            const response = await fetch("/rt-status", {
                headers: { Accept: "application/json" },
                cache: "no-store", signal: withTimeout(signal),
            });
            if (!response.ok) {
                throw new Error(String(response.status));
            }
            const status = await response.json();
            failures = 0;
            offer(status.hubs.map(({ name }) => name));
            const hub = status.hubs.find(({ name }) => name === current.hub);
            if (hub) {
                showFeed(hub);
            } else {
                pill("feed-state", "no such hub", "bad");
            }
        } catch {
            pill("feed-state", "no answer", "bad");
            wait = backoff(++failures);
        }
        await sleep(wait, signal);
    }
}


/* publishing */

function shellQuote(text) {
    return /^[\w:.,/@%+=-]+$/.test(text) ? text
        : `'${text.replaceAll("'", "'\\''")}'`;
}

function showCommand() {
    const text = $("payload").value;
    const channel = current.channel;
    let words;
    if (current.hub === "mem") {
        const url = location.origin + hubs.mem.publish
            + channelText(channel);
        words = ["curl", "--data-binary", text, url];
    } else {
        const at = /^(.*):(\d+)$/.exec(current.server ?? "");
        const unix = /^unix:(.*)$/.exec(current.server ?? "");
        words = ["redis-cli"];
        if (unix) {
            words.push("-s", unix[1]);
        } else if (at) {
            if (at[1] !== "127.0.0.1") {
                words.push("-h", at[1]);
            }
            words.push("-p", at[2]);
        }
        words.push("publish", channel, text);
    }
    set("command", words.map(shellQuote).join(" "));
}

async function publish(text) {
    const target = hubs[current.hub].publish + channelText(current.channel);
    current.sent = { text, at: performance.now() };
    set("publish-result", "…");
    try {
        const response = await fetch(target, {
            method: "POST", body: encoder.encode(text),
            headers: { "Content-Type": "text/plain;charset=utf-8" },
            signal: AbortSignal.timeout(TIMEOUT),
        });
        const answer = await response.text();
        if (response.status !== 202) {
            set("publish-result", `${response.status}: ${answer.trim()}`);
            return;
        }
        const { receivers } = JSON.parse(answer);
        set("publish-result", `Accepted (202) in `
            + span(performance.now() - current.sent.at)
            + (receivers == null ? "." : `, receivers: ${receivers}.`));
    } catch (error) {
        set("publish-result", `Not sent: ${error.message}`);
    }
}

async function copy() {
    try {
        await navigator.clipboard.writeText($("command").textContent);
        set("copy", "Copied");
    } catch {
        getSelection().selectAllChildren($("command"));
        set("copy", "Selected");
    }
    setTimeout(() => set("copy", "Copy"), 1500);
}


/* the page */

const poll = new Poll();
const stream = new Stream();
const adaptive = new Adaptive();

function follow(hub, channel) {
    current.hub = hub;
    current.channel = channel;
    current.sent = null;
    const url = hubs[hub].subscribe + channelText(channel);
    $("channel").value = channel;
    $("hub").value = hub;
    const query = new URLSearchParams({ channel, hub });
    history.replaceState(null, "", `?${query}`);
    document.title = `${channel}: ngx_rt`;
    set("poll-pause", "Pause");
    set("sse-pause", "Close");
    poll.follow(url);
    stream.follow(url);
    adaptive.follow(url);
    showCommand();
}

$("follow").addEventListener("submit", (event) => {
    event.preventDefault();
    follow($("hub").value, $("channel").value);
});

$("publish").addEventListener("submit", (event) => {
    event.preventDefault();
    publish($("payload").value);
});

$("payload").addEventListener("input", showCommand);

$("payload").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        $("publish").requestSubmit();
    }
});

$("copy").addEventListener("click", copy);

$("poll-pause").addEventListener("click", () => {
    if (poll.running) {
        poll.stop();
        pill("poll-state", "paused");
        set("poll-pause", "Go on");
    } else {
        poll.start();
        set("poll-pause", "Pause");
    }
});

$("sse-pause").addEventListener("click", () => {
    if (stream.closed) {
        stream.open(stream.id, stream.id ? "from its last id" : "anew");
        set("sse-pause", "Close");
    } else {
        stream.close();
        set("sse-pause", "Open");
    }
});

$("from-etag").addEventListener("click", () => {
    stream.open(poll.cursor, "from the poll's ETag");
    set("sse-pause", "Close");
});

const asked = new URLSearchParams(location.search);
const hub = Object.hasOwn(hubs, asked.get("hub") ?? "") ? asked.get("hub")
    : "app";
follow(hub, asked.get("channel") || $("channel").value);
watchFeed();
