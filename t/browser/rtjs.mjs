/*
 * conf/www/rt.js in Chromium, behind a proxy that sees all it asks.  Started
 * by t/81-rtjs.t, see harness.mjs; the locations are there.
 */

import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import {
    Viewers, arrives, complaints, dir, feedIsLive, is, ok, open,
    publishByHttp, redis, start, stop, until, url,
} from "./harness.mjs";
import { Proxy } from "./proxy.mjs";

let asked = 0;

/* the test itself starts and stops nginx: t/81-rtjs.t */
async function nginx(what) {
    const n = ++asked;
    writeFileSync(`${dir}/command.new`, `${n} ${what}`);
    renameSync(`${dir}/command.new`, `${dir}/command`);
    const done = await until(() => existsSync(`${dir}/answer`)
        && readFileSync(`${dir}/answer`, "utf8") === String(n), 30);
    if (!done) {
        throw new Error(`nginx: ${what}: no answer`);
    }
}

const say = (channel, text) => publishByHttp(`/publish?channel=${channel}`,
                                             text);

/* a subscription in a page of its own, and all that came of it */
class Feed {
    static async open(path, options = {}, streams = "pass") {
        const self = new Feed();
        self.proxy = await Proxy.start();
        self.proxy.streams = streams;
        self.page = await open("/favicon.svg", { base: self.proxy.url });
        await self.page.evaluate(async ([path, options]) => {
            const { subscribe } = await import("/rt.js");
            window.got = { messages: [], gaps: [], states: [] };
            window.feed = subscribe(path, (message) => {
                window.got.messages.push(message);
                if (message.data === "throw") {
                    throw new Error("of the page");
                }
            }, {
                ...options,
                onGap: (gap) => window.got.gaps.push(gap),
                onStatus: ({ transport, reason }) => window.got.states.push(
                    `${transport}: ${reason}`),
            });
        }, [path, options]);
        return self;
    }

    get(what) {
        return this.page.evaluate((what) => window.got[what], what);
    }

    async data() {
        return (await this.get("messages")).map(({ data }) => data);
    }

    transport() {
        return this.page.evaluate(() => window.feed.transport);
    }

    state() {
        return this.page.evaluate(() => `${window.feed.transport}: ${
            window.feed.reason}`);
    }

    is(state, name, seconds = 15) {
        return arrives(async () => await this.state() === state, name,
                       seconds);
    }

    has(text, name) {
        return arrives(async () => (await this.data()).includes(text), name);
    }

    show(state) {
        return this.page.evaluate((state) => {
            Object.defineProperty(document, "visibilityState",
                                  { configurable: true, get: () => state });
            document.dispatchEvent(new Event("visibilitychange"));
        }, state);
    }

    /* so many answers to polls */
    polled(n) {
        return until(() => this.proxy.polls()
            .filter((poll) => poll.status).length >= n, 20);
    }

    async close() {
        await this.page.close();
        await this.proxy.stop();
    }
}


async function polls() {
    await say("polls", "one");
    const feed = await Feed.open("/rt/polls");
    await feed.has("one", "polls: the latest message");
    ok(await feed.polled(4), "polls: goes on");
    const seen = feed.proxy.polls();
    is(seen.slice(0, 4).map((poll) => poll.status), [200, 304, 304, 304],
       "polls: 304 while nothing changes");
    is(seen[0].etag, "", "polls: the first has no condition");
    ok(/^"[\w.,-]+"$/.test(seen[1].etag), "polls: the next has the ETag");
    const gaps = [1, 2].map((i) => Math.round(seen[i + 1].at - seen[i].at));
    ok(Math.min(...gaps) > 850 && Math.min(...gaps) < 10000,
       "polls: at the advised interval", gaps.join(" "));
    is(await feed.state(), "poll: advised", "polls: and says so");

    await say("polls", "<b>two</b>\r\n& \u{1F600}");
    await feed.has("<b>two</b>\n& \u{1F600}", "polls: what changed, as text");
    await say("polls", "throw");
    await feed.has("throw", "polls: a callback that throws");
    await say("polls", "after");
    await feed.has("after", "polls: stops nothing");
    is(await feed.data(), ["one", "<b>two</b>\n& \u{1F600}", "throw", "after"],
       "polls: each once");
    is(feed.proxy.opens().length, 0, "polls: no stream was opened");

    await feed.page.evaluate(() => window.feed.close());
    const before = feed.proxy.log.length;
    await say("polls", "closed");
    const clock = await Feed.open("/rt/polls?clock");
    await clock.polled(4);
    is(feed.proxy.log.length, before, "close: nothing is asked any more");
    is(await feed.state(), "none: closed", "close: and says so");
    ok(!(await feed.data()).includes("closed"), "close: nothing is told");
    await feed.show("hidden");
    await feed.show("visible");
    is(await feed.state(), "none: closed", "close: for good");
    await clock.close();
    await feed.close();
}


async function adapts() {
    await say("adapts", "a0");
    const feed = await Feed.open("/rt/adapts", { check: 2 });
    await feed.has("a0", "few viewers: polls");
    is(await feed.transport(), "poll", "few viewers: and knows it");
    const viewers = await Viewers.open("/rt/adapts", 60);
    await feed.is("sse: advised", "60 viewers: moves to a stream");
    const open = feed.proxy.opens();
    is(open.length, 1, "60 viewers: one stream");
    ok(/\?last_event_id=[\w.,-]+$/.test(open[0].url),
       "60 viewers: from the poll's cursor", open[0].url);
    for (let i = 1; i <= 20; i++) {
        await say("adapts", `a${i}`);
    }
    await feed.has("a20", "60 viewers: messages come by it");
    is(await feed.data(), Array.from({ length: 21 }, (_, i) => `a${i}`),
       "60 viewers: every one, once");
    const looks = () => feed.proxy.log.filter(({ method }) =>
        method === "HEAD").length;
    const before = looks();
    /* up to wait after one that was faster than a message */
    await arrives(() => looks() > before + 1,
                  "60 viewers: is looked at on the side", 40);
    is(await feed.transport(), "sse", "60 viewers: the stream stays");
    is(feed.proxy.polls().filter(({ at }) => at > open[0].at).length, 0,
       "60 viewers: without polls");

    viewers.leave(5);
    await feed.is("poll: advised", "5 viewers: goes back to polls", 90);
    await arrives(() => feed.proxy.open() === 0,
                  "5 viewers: the stream is closed");
    const last = feed.proxy.polls().findLast((poll) => poll.at > open[0].at);
    is(last?.status, 304, "5 viewers: by the stream's cursor");
    await say("adapts", "b");
    await feed.has("b", "5 viewers: polls");
    is((await feed.data()).slice(20), ["a20", "b"],
       "5 viewers: nothing twice");
    is(await feed.get("gaps"), [], "no gap");
    viewers.leave();
    await feed.close();
}


/* what is written while it changes over */
async function changesOver() {
    await say("over", "m0");
    const feed = await Feed.open("/rt/over", { check: 2 });
    await feed.has("m0", "changing over: polls");
    const viewers = await Viewers.open("/rt/over", 60);
    let n = 0;
    const there = await until(async () => {
        await say("over", `m${++n}`);
        return await feed.transport() === "sse" && feed.proxy.open() > 0;
    }, 20);
    ok(there, "changing over: to a stream, under fire");
    const at = n;
    await say("over", `m${++n}`);
    await feed.has(`m${n}`, "changing over: all is there");
    const data = await feed.data();
    is(new Set(data).size, data.length, "changing over: nothing twice");
    is(data, [...data].sort((a, b) => a.slice(1) - b.slice(1)),
       "changing over: in order");
    const since = await feed.page.evaluate(() => {
        const at = window.got.states.indexOf("sse: opening");
        return window.got.states.slice(0, at).length;
    });
    ok(since > 0 && data.includes(`m${at}`),
       "changing over: what was written last by polls, too");
    const opened = /last_event_id=(.*)/.exec(feed.proxy.opens()[0].url)[1];
    const ids = (await feed.get("messages")).map(({ id }) => id);
    const from = ids.indexOf(opened);
    ok(from >= 0, "changing over: from the last that was polled");
    const numbers = data.slice(from).map((text) => Number(text.slice(1)));
    is(numbers, numbers.map((_, i) => numbers[0] + i),
       "changing over: the stream has every one after it");
    viewers.leave();
    await feed.close();
}


async function blocked(how) {
    const channel = `blocked-${how}`;
    const viewers = await Viewers.open(`/rt/${channel}`, 60);
    await say(channel, "one");
    /* enough for a stream that opens, on a machine that is busy */
    const wait = { refuse: 10000, hold: 3000, buffer: 4000 }[how];
    const feed = await Feed.open(`/rt/${channel}`, { wait, check: 1 }, how);
    await feed.has("one", `${how}: polls first`);
    await arrives(() => feed.proxy.opens().length > 0,
                  `${how}: tries a stream`);
    if (how === "buffer") {
        await feed.is("sse: advised", "buffer: opens");
        await say(channel, "unheard");
        await arrives(async () => (await feed.data()).includes("unheard"),
                      "buffer: what the stream does not bring", 20);
    }
    await feed.is("poll: streams are blocked", `${how}: goes on polling`);
    const tried = feed.proxy.opens().length;
    is(tried, how === "refuse" ? 2 : 1, `${how}: after so many streams`);
    await say(channel, "two");
    await feed.has("two", `${how}: hears what comes`);
    await feed.polled(feed.proxy.polls().length + 3);
    is(feed.proxy.opens().length, tried, `${how}: leaves it at that`);
    is(await feed.data(), how === "buffer" ? ["one", "unheard", "two"]
        : ["one", "two"], `${how}: each once`);

    /* a minute later */
    feed.proxy.streams = "pass";
    await feed.page.evaluate(() => {
        const now = Date.now;
        Date.now = () => now() + 61000;
    });
    await feed.is("sse: advised", `${how}: tries again, later`);
    await say(channel, "three");
    await feed.has("three", `${how}: and stays`);
    viewers.leave();
    await feed.close();
}


async function hidden() {
    await say("hidden", "one");
    const feed = await Feed.open("/rt/hidden");
    await feed.has("one", "hidden: polls");
    await feed.show("hidden");
    await feed.is("none: hidden", "hidden: pauses");
    const before = feed.proxy.log.length;
    await say("hidden", "two");
    const clock = await Feed.open("/rt/hidden?clock");
    await clock.polled(4);
    is(feed.proxy.log.length, before, "hidden: asks nothing");
    await clock.close();
    await feed.show("visible");
    await feed.has("two", "hidden: seen again, it asks");

    const slow = await Feed.open("/slow/hidden");
    await slow.has("two", "hidden: polls once a minute");
    await slow.show("hidden");
    await say("hidden", "two and a half");
    await slow.show("visible");
    await slow.has("two and a half", "hidden: seen again, it asks at once");
    await slow.close();
    await feed.has("two and a half", "hidden: polls");

    const viewers = await Viewers.open("/rt/hidden", 60);
    await feed.is("sse: advised", "hidden: a stream");
    await feed.show("hidden");
    await arrives(() => feed.proxy.opens().every((entry) => !entry.open),
                  "hidden: is closed");
    for (const text of ["three", "four", "five"]) {
        await say("hidden", text);
    }
    await feed.show("visible");
    await feed.has("five", "hidden: goes on when it is seen");
    is(await feed.data(), ["one", "two", "two and a half", "three",
                             "four", "five"],
       "hidden: with all that came meanwhile");
    is(await feed.get("gaps"), [], "hidden: no gap");
    viewers.leave();
    await feed.close();
}


async function several() {
    await say("x", "throw");
    await say("y", "y1");
    const feed = await Feed.open("/many/x,y", { channels: ["x", "y"],
                                                check: 2 });
    await feed.has("y1", "several: polls, also behind one that throws");
    await say("x", "x2\r\nx");
    await feed.has("x2\nx", "several: one of them changes");
    const told = async () => (await feed.get("messages"))
        .map(({ channel, data, event }) => [channel, data, event]);
    is(await told(), [["x", "throw", "message"], ["y", "y1", "message"],
                      ["x", "x2\nx", "message"]],
       "several: the others are not told again");
    const viewers = await Viewers.open("/many/x,y", 60);
    await feed.is("sse: advised", "several: a stream");
    await say("y", "y2");
    await say("x", "x3");
    await feed.has("x3", "several: messages come by it");
    is((await told()).slice(3), [["y", "y2", "message"],
                                 ["x", "x3", "message"]],
       "several: with their channels");
    viewers.leave(5);
    await feed.is("poll: advised", "several: back to polls", 90);
    await say("x", "x4");
    await feed.has("x4", "several: polls again");
    is((await feed.data()).slice(5), ["x4"], "several: y is not told again");
    viewers.leave();
    await feed.close();

    /* JSON that is one message, whatever it looks like */
    await say("json", '[{"channel":"a","data":"b"}]');
    const json = await Feed.open("/many/json");
    await json.has('[{"channel":"a","data":"b"}]',
                   "a list of JSON is one message");
    await json.close();
}


async function errors() {
    await say("errors", "one");
    const feed = await Feed.open("/rt/errors");
    await feed.has("one", "errors: polls");
    feed.proxy.answer = () => ({ status: 500 });
    await until(() => feed.proxy.polls().filter((poll) => poll.status === 500)
        .length >= 3, 40);
    const failed = feed.proxy.polls().filter((poll) => poll.status === 500);
    const gaps = failed.slice(1).map((poll, i) => Math.round(poll.at
                                                     - failed[i].at));
    ok(gaps[0] > 950 && gaps[0] < 10000 && gaps[1] > 1950 && gaps[1] < 12000,
       "errors: again after 1 s, then 2 s, with jitter", gaps.join(" "));
    is(await feed.state(), "poll: 500", "errors: are told");
    feed.proxy.answer = () => undefined;
    await say("errors", "two");
    await arrives(async () => (await feed.data()).includes("two"),
                  "errors: then it goes on", 40);
    is(await feed.data(), ["one", "two"], "errors: each once");
    await feed.is("poll: advised", "errors: and is content");
    await feed.close();
}


async function retryAfter(form, value) {
    await say("after", "one");
    const feed = await Feed.open("/rt/after");
    await feed.has("one", `Retry-After, ${form}: polls`);
    let at;
    feed.proxy.answer = () => {
        at ??= performance.now();
        return { status: 503, headers: { "Retry-After": value() } };
    };
    await until(() => at, 10);
    feed.proxy.answer = () => undefined;
    const next = await until(() => feed.proxy.polls().find((poll) =>
        poll.at > at + 100), 20);
    const ms = Math.round(next?.at - at);
    ok(ms > 3900 && ms < 10000, `Retry-After, ${form}: is honoured`, ms);
    await feed.close();
}


async function restarts() {
    await feedIsLive();
    const cases = await Promise.all([["stream", 0], ["stream", 60], ["pub", 0],
                                     ["pub", 60]].map(async ([source, n]) => {
        const name = `restart, ${source}, ${n ? "stream" : "polls"}`;
        const send = (text) => (source === "stream"
            ? redis("xadd", `s:r${n}`, "*", "data", text)
            : redis("publish", `r${n}`, text));
        const viewers = await Viewers.open(`/${source}/r${n}`, n);
        const feed = await Feed.open(`/${source}/r${n}`, { check: 20 });
        await feed.is(n ? "sse: advised" : "poll: advised", `${name}: begins`);
        await send("before");
        await feed.has("before", `${name}: hears`);
        return { name, send, feed, viewers, source, n };
    }));
    await nginx("stop");
    for (const { name, send, feed } of cases) {
        await arrives(async () => /^(poll: (?!adv)|sse: (?!adv))/.test(
            await feed.state()), `${name}: nginx is gone`);
        await send("meanwhile 1");
        await send("meanwhile 2");
    }
    await nginx("start");
    await feedIsLive();
    await Promise.all(cases.map(async ({ name, send, feed, viewers, source,
                                         n }) => {
        await feed.is(n ? "sse: advised" : "poll: advised",
                      `${name}: there again`, 40);
        await send("after");
        await feed.has("after", `${name}: goes on`);
        const data = await feed.data();
        const gaps = await feed.get("gaps");
        is(new Set(data).size, data.length, `${name}: nothing twice`);
        if (!n) {
            is([data[0], data.at(-1)], ["before", "after"],
               `${name}: the latest`);
        } else if (source === "stream") {
            is([data, gaps], [["before", "meanwhile 1", "meanwhile 2",
                               "after"], []], `${name}: nothing missed`);
        } else {
            is(data, ["before", "after"], `${name}: what Redis does not keep`);
            ok(gaps.length === 1 && gaps[0].channel === `r${n}`
               && gaps[0].reason && gaps[0].id, `${name}: is told as a gap`,
               JSON.stringify(gaps));
        }
        viewers.leave();
        await feed.close();
    }));
}


async function main() {
    await start();
    const all = { polls, adapts, changesOver, hidden, several, errors,
                  seconds: () => retryAfter("seconds", () => "4"),
                  date: () => retryAfter("a date", () =>
                      new Date(Date.now() + 5000).toUTCString()),
                  refuse: () => blocked("refuse"), hold: () => blocked("hold"),
                  buffer: () => blocked("buffer") };
    const only = process.env.RT_ONLY?.split(",");
    const wanted = (name) => !only || only.includes(name);
    /* each has its own channel, page and proxy */
    await Promise.all(Object.keys(all).filter(wanted).map(async (name) => {
        await all[name]();
        console.log(`# ${name}: ${Math.round(performance.now() / 1000)} s`);
    }));
    if (wanted("restarts")) {
        await restarts();
    }
    is(complaints.filter((text) =>
        !/ERR_|status of 50|of the page/.test(text)), [],
       "no page has complained on the console");
}

try {
    await main();
    console.log(`done - ${url}`);
} catch (error) {
    ok(false, "the tests of rt.js run to their end", error.stack);
} finally {
    await stop();
}
process.exit();
