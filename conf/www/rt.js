/*
 * A channel of ngx_rt, by polls or by a stream as the server advises.
 *
 *     const feed = subscribe("/rt/orders:42", ({ data }) => show(data),
 *                            { onGap: loadEverythingAgain });
 *     feed.close();
 *
 * A message is { data, event, id, channel }; data is text, never markup.  A
 * stream brings every message, a poll the latest where it differs from what
 * was told last.  One cursor serves both: changing over neither loses nor
 * repeats.
 *
 * Options, and what feed tells: README.md, "In the browser".
 */

const BLOCKED = 60000;      /* ms without streams, at first */
const TIMEOUT = 30000;

/* as EventSource has them */
const lines = (text) => text.replace(/\r\n?/g, "\n");
const decode = (bytes) => lines(
    new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));

const jitter = (s) => 1000 * s * (0.9 + Math.random() / 5);

const call = (fn, value) => {
    try {
        fn && fn(value);
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
    let source, request, timer, deadline, streaming, closed;
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

    /* null: does not matter any more */
    async function ask(method) {
        const mine = request = new AbortController();
        const late = setTimeout(() => mine.abort(new Error("timeout")),
                                TIMEOUT);
        const before = feed.cursor;
        let answer;
        try {
            const response = await fetch(url, {
                method, cache: "no-store", signal: mine.signal,
                headers: before ? { "If-None-Match": `"${before}"` } : {},
            });
            const { status } = response;
            const header = (name) => response.headers.get(name) ?? "";
            const after = header("Retry-After");    /* s, or a date */
            answer = [200, 204, 304].includes(status) ? {
                status, before, advice: header("RT-Advice"),
                type: header("Content-Type"),
                id: header("ETag").replace(/^W\/|"/g, ""),
                text: decode(await response.arrayBuffer()),
            } : { error: String(status), after: after * 1000
                  || Date.parse(after) - Date.now() || 0 };
            if (request === mine) {
                feed.status = status;
                feed.interval = Number(header("RT-Poll-Interval")) || 5;
            }
        } catch (error) {
            answer = { error: error.message };
        }
        clearTimeout(late);
        return request === mine ? answer : null;
    }

    async function poll() {
        stop();
        streaming = false;
        const answer = await ask("GET");
        if (!answer) {
            return;
        }
        const { error, advice, after } = answer;
        if (error) {
            timer = setTimeout(poll, backoff(after));
        } else {
            timer = setTimeout(poll, jitter(feed.interval));
            failures = 0;
            take(answer);
        }
        const advised = advice === "sse" && feed.cursor;
        if (closed) {                   /* by onMessage */
            return;
        }
        if (advised && Date.now() >= until) {
            stream();
        } else {
            tell("poll", error
                 ?? (advised ? "streams are blocked" : "advised"));
        }
    }

    function take({ status, text, type, id }) {
        const fresh = status === 200 ? unpack(text, type).filter(
            ({ channel, data }) => told.get(channel) !== data) : [];
        /* no ETag: no ground for a later 304 */
        feed.cursor = id || (fresh.length ? "" : feed.cursor);
        for (const message of fresh) {
            give({ id: feed.cursor, ...message });
        }
    }

    function give(message) {
        told.set(message.channel, message.data);
        call(!closed && onMessage, message);
    }

    function blocked() {
        misses = 2;
        probe();
    }

    function stream() {
        stop();
        streaming = true;
        const mine = source = new EventSource(url
            + (url.includes("?") ? "&" : "?") + "last_event_id="
            + encodeURIComponent(feed.cursor).replaceAll("%2C", ","));
        tell("sse", "opening");
        deadline = setTimeout(blocked, wait);
        mine.onopen = () => {
            misses = failures = 0;
            clearTimeout(deadline);
            tell("sse", "advised");
        };
        mine.onerror = () => {
            if (feed.reason === "advised" && mine.readyState < 2) {
                tell("sse", "reconnecting");    /* by itself */
                deadline = setTimeout(probe, 4 * wait);
            } else {
                misses++;
                probe();
            }
        };
        for (const type of ["message", "rt.gap", ...events, ...channels]) {
            mine.addEventListener(type, hear);
        }
        timer = setTimeout(look, jitter(check * feed.interval));
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
        give({ data, event: channel ? "message" : type, id: feed.cursor,
               channel });
    }

    /* A stream shows no headers: on the side HEAD tells when polls are
     * advised, and of news that a proxy keeps back. */
    async function look(last) {
        const answer = await ask("HEAD");
        if (!answer) {
            return;
        }
        const { status, advice, id, before } = answer;
        const news = feed.reason === "advised" && status === 200 && id
            && before;
        if (advice === "poll") {
            poll();
        } else if (news && news === last) {
            blocked();
        } else {
            timer = setTimeout(look, news ? wait
                : jitter(check * feed.interval), news);
        }
    }

    /* twice no stream while HEAD is answered: blocked */
    async function probe() {
        stop();
        const answer = await ask("HEAD");
        if (answer?.error) {
            misses = 0;
            timer = setTimeout(probe, backoff(answer.after));
            tell("sse", answer.error);
        } else if (answer && misses > 1) {
            misses = 0;
            until = Date.now() + BLOCKED * 2 ** Math.min(4, blocks++);
            poll();
        } else if (answer) {
            stream();
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
        closed = true;
        stop();
        document.removeEventListener("visibilitychange", seen);
        tell("none", "closed");
    }

    document.addEventListener("visibilitychange", seen);
    seen();
    return feed;
}
