/*
 * A channel of ngx_rt, by polls or by a stream as the server advises.
 *
 *     const feed = subscribe("/rt/orders:42", ({ data }) => show(data),
 *                            { onGap: loadEverythingAgain });
 *     feed.close();
 *
 * A message is { data, event, id, channel }; data is text, never markup.  A
 * stream brings every message, a poll the latest state where it differs from
 * what was told last.  One cursor serves both, so that changing over neither
 * loses nor repeats.
 *
 * Options, and what feed tells: README.md, "In the browser".
 */

const BLOCKED = 60000;      /* ms to poll where streams don't pass, at first */
const TIMEOUT = 30000;      /* ms, of a request */

/* as EventSource: a line ends by "\n", a BOM is data */
const lines = (text) => text.replace(/\r\n?/g, "\n");
const decode = (bytes) => lines(
    new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));

const jitter = (s) => 1000 * s * (0.9 + Math.random() / 5);

const call = (fn, value) => {
    try {
        fn?.(value);
    } catch (error) {
        reportError(error);
    }
};

/* a poll of several channels is a list */
function unpack(text, type) {
    try {
        const list = /^application\/json/.test(type) && JSON.parse(text);
        if (list[0] && list.every((item) => item.channel && item.id)) {
            return list.map(({ encoding, data, ...item }) => ({
                ...item, event: item.event ?? "message",
                data: encoding ? decode(Uint8Array.from(atob(data),
                    (c) => c.charCodeAt(0))) : lines(data),
            }));
        }
    } catch { /* no list */ }
    return [{ data: text, event: "message" }];
}

export function subscribe(url, onMessage, options = {}) {
    const { events = [], channels = [], check = 10, wait = 10000 } = options;
    const feed = { transport: "none", reason: "", interval: 5, status: 0,
                   cursor: options.cursor ?? "", close };
    const told = new Map();     /* by channel */
    let source, request, timer, deadline, streaming;
    let failures = 0, misses = 0;       /* of polls, of streams, in a row */
    let blocks = 0, until = 0;          /* how often and how long blocked */

    function stop() {
        source?.close();
        request?.abort();
        clearTimeout(timer);
        clearTimeout(deadline);
        source = request = null;
    }

    function tell(transport, reason) {
        Object.assign(feed, { transport, reason });
        call(options.onStatus, feed);
    }

    /* 1 s to 30 s, or what the server asks for */
    function backoff(after = 0) {
        const s = Math.min(20, 2 ** failures++) * (1 + Math.random() / 2);
        return Math.min(864e5, Math.max(1000 * s,
                                        after * (1 + Math.random() / 10)));
    }

    async function ask(method, mine) {
        const late = setTimeout(() => mine.abort(new Error("timeout")),
                                TIMEOUT);
        try {
            const response = await fetch(url, {
                method, cache: "no-store", signal: mine.signal,
                headers: feed.cursor
                    ? { "If-None-Match": `"${feed.cursor}"` } : {},
            });
            const { status } = response;
            const header = (name) => response.headers.get(name) ?? "";
            feed.status = status;
            if (![200, 204, 304].includes(status)) {
                const after = header("Retry-After");
                throw Object.assign(new Error(status), { after: after * 1000
                    || Date.parse(after) - Date.now() || 0 });
            }
            feed.interval = Number(header("RT-Poll-Interval")) || 5;
            return { status, advice: header("RT-Advice"),
                     type: header("Content-Type"),
                     id: header("ETag").replace(/^W\/|"/g, ""),
                     text: decode(await response.arrayBuffer()) };
        } finally {
            clearTimeout(late);
        }
    }

    async function poll() {
        stop();
        streaming = false;
        const mine = request = new AbortController();
        const answer = await ask("GET", mine).catch((error) => ({ error }));
        const { error, advice } = answer;
        if (request !== mine) {
            return;
        }
        if (error) {
            timer = setTimeout(poll, backoff(error.after));
        } else {
            timer = setTimeout(poll, jitter(feed.interval));
            failures = 0;
            if (misses > 1) {           /* but polls pass */
                until = Date.now() + BLOCKED * 2 ** Math.min(4, blocks++);
            }
            take(answer, mine);
        }
        misses = 0;
        if (request !== mine) {
            return;                     /* closed by onMessage */
        }
        const advised = advice === "sse" && feed.cursor;
        if (advised && Date.now() >= until) {
            stream();
        } else {
            tell("poll", error?.message
                 ?? (advised ? "streams are blocked" : "advised"));
        }
    }

    function take({ status, text, type, id }, mine) {
        const fresh = status === 200 ? unpack(text, type).filter(
            ({ channel, data }) => told.get(channel) !== data) : [];
        /* without an ETag there is no ground for a later 304 */
        feed.cursor = id || (fresh.length ? "" : feed.cursor);
        for (const message of fresh) {
            if (request === mine) {
                told.set(message.channel, message.data);
                call(onMessage, { id: feed.cursor, ...message });
            }
        }
    }

    function stream() {
        stop();
        streaming = true;
        const mine = source = new EventSource(url
            + (url.includes("?") ? "&" : "?") + "last_event_id="
            + encodeURIComponent(feed.cursor).replaceAll("%2C", ","));
        const blocked = () => {
            if (source === mine) {
                misses = 2;
                poll();
            }
        };
        tell("sse", "opening");
        deadline = setTimeout(blocked, wait);
        mine.onopen = () => {
            misses = failures = 0;
            clearTimeout(deadline);
            tell("sse", "advised");
        };
        mine.onerror = () => {
            clearTimeout(deadline);
            if (++misses > 1) {
                poll();
                return;
            }
            tell("sse", "reconnecting");
            if (mine.readyState < 2) {  /* by itself, after its retry */
                deadline = setTimeout(blocked, 4 * wait);
            } else {
                clearTimeout(timer);
                timer = setTimeout(stream, backoff());
            }
        };
        for (const type of ["message", "rt.gap", ...events, ...channels]) {
            mine.addEventListener(type, hear);
        }
        timer = setTimeout(look, jitter(check * feed.interval), blocked);
    }

    function hear({ type, data, lastEventId }) {
        if (this !== source) {
            return;
        }
        blocks = 0;
        feed.cursor = lastEventId || feed.cursor;
        if (type === "rt.gap") {
            call(options.onGap, { ...JSON.parse(data), id: feed.cursor });
            return;
        }
        const channel = channels.includes(type) ? type : undefined;
        told.set(channel, data);
        call(onMessage, { data, event: channel ? "message" : type,
                          id: feed.cursor, channel });
    }

    /* A stream shows no headers: HEAD tells on the side whether polls are
     * advised again, and of news that the stream has not brought, as behind a
     * proxy that buffers. */
    async function look(blocked) {
        const mine = request = new AbortController();
        const before = feed.cursor;
        timer = setTimeout(look, jitter(check * feed.interval), blocked);
        const { status, advice, id } = await ask("HEAD", mine)
            .catch((error) => error);
        if (request !== mine) {
            return;
        }
        if (advice === "poll") {
            poll();
        } else if (status === 200 && id) {
            clearTimeout(deadline);
            deadline = setTimeout(
                () => feed.cursor === before && blocked(), wait);
        }
    }

    function seen() {
        if (document.visibilityState === "hidden") {
            stop();
            tell("none", "hidden");
        } else {
            (streaming ? stream : poll)();
        }
    }

    function close() {
        stop();
        document.removeEventListener("visibilitychange", seen);
        tell("none", "closed");
    }

    document.addEventListener("visibilitychange", seen);
    seen();
    return feed;
}
