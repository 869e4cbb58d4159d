/*
 * Real EventSource, real fetch, the real page.  Started by t/80-browser.t,
 * see harness.mjs.
 */

import {
    Source, Viewers, arrives, complaints, cursor, feedIsLive, is, killWorkers, ok,
    open, poll, publishByHttp, redis, reload, start, status, stop, until,
    dir, url,
} from "./harness.mjs";

const encoder = new TextEncoder();

/* what an EventSource makes of a payload: every line end is one "\n", bytes
 * that are no UTF-8 are U+FFFD */
function asEvent(bytes) {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes)
        .replace(/\r\n?/g, "\n");
}

function base64(bytes) {
    return Buffer.from(bytes).toString("base64");
}

/* a channel that is heard: the demo's pattern orders:* covers it, so it is as
 * soon as the feed is live */
async function warm(page, channel) {
    await feedIsLive();
    await poll(page, `/rt/${channel}`);
}


async function payloads(page) {
    const cases = {
        "plain": "hello",
        "CR": "a\rb",
        "LF": "a\nb",
        "CRLF": "a\r\nb",
        "CR at the end": "a\r",
        "LF at the end": "a\n",
        "CRLF at both ends": "\r\na\r\n",
        "LF CR": "a\n\rb",
        "line ends alone": "\n\n",
        "NUL": "a\0b",
        "BOM at the start": "\ufeffa",
        "UTF-8": "Grüße, 世界, 😀\u2028\u0085",
        "space at the start": "  a",
        "a colon at the start": ":a",
        "looks like fields": "a\nid: 1\nevent: evil\nretry: 1\n\ndata: b",
        "looks like fields, CR": "a\rid: 1\r\revent: evil\rdata: b\r\r",
        "HTML": "<script>alert(1)</script>&amp;",
        "no UTF-8": Uint8Array.of(0x61, 0xff, 0xc0, 0x80, 0xed, 0xa0, 0x80),
        "200 KB": "0123456789abcde\n".repeat(12800),
        "empty": "",
    };
    const channel = "orders:payloads";
    await warm(page, channel);
    const source = await Source.open(page, `/rt/${channel}?last_event_id=`,
                                     ["evil"]);
    let n = 0;
    for (const [name, payload] of Object.entries(cases)) {
        const bytes = typeof payload === "string" ? encoder.encode(payload)
            : payload;
        n++;
        await redis("publish", channel, bytes);
        if (!await until(() => source.has("message", n))) {
            ok(false, `payload, ${name}: arrives at EventSource`);
            break;
        }
        is((await source.data()).at(-1), asEvent(bytes),
           `payload, ${name}: EventSource`);
        const { body } = await poll(page, `/rt/${channel}`);
        is(body, base64(bytes), `payload, ${name}: poll`);
    }
    const types = (await source.events()).map(([type]) => type);
    is([...new Set(types)].sort(), ["message", "open"],
       "payloads: nothing but messages came");
    await source.close();
}


async function conditional(page) {
    const channel = "orders:conditional";
    const path = `/rt/${channel}`;
    await warm(page, channel);
    await redis("publish", channel, "one");
    const first = await arrives(async () => {
        const r = await poll(page, path);
        return r.status === 200 && r;
    }, "poll: 200 once something was published");
    if (!first) {
        return;
    }
    is(first.body, base64("one"), "poll: the message");
    ok(Number(first.interval) > 0, "poll: RT-Poll-Interval is a number");
    ok(["poll", "sse", "websocket"].includes(first.advice),
       "poll: RT-Advice is one of the patterns");
    const second = await poll(page, path, first.etag);
    is([second.status, second.body, second.etag], [304, "", first.etag],
       "poll: 304 without a body, the same ETag");
    await redis("publish", channel, "two");
    const third = await arrives(async () => {
        const r = await poll(page, path, first.etag);
        return r.status === 200 && r;
    }, "poll: 200 again after a publish");
    is(third?.body, base64("two"), "poll: the new message");
}


/* poll, miss some, open the stream from the poll's ETag */
async function handover(page, hub) {
    const name = `from a poll to a stream, ${hub}`;
    const channel = "orders:handover";
    const path = hub === "app" ? `/rt/${channel}` : `/mem/${channel}`;
    const say = (text) => (hub === "app" ? redis("publish", channel, text)
        : publishByHttp(`/mem-publish?channel=${channel}`, text));
    if (hub === "app") {
        await warm(page, channel);
    }
    await say("before");
    const polled = await until(async () => {
        const r = await poll(page, path);
        return r.status === 200 && r;
    });
    if (!ok(polled, `${name}: polled`)) {
        return;
    }

    const quiet = await Source.open(page,
        `${path}?last_event_id=${cursor(polled.etag)}`);
    await say("m1");
    await until(() => quiet.has("message", 1));
    is(await quiet.data(), ["m1"], `${name}: what was polled is not repeated`);
    await quiet.close();

    await say("m2");
    await say("m3");
    const source = await Source.open(page,
        `${path}?last_event_id=${cursor(polled.etag)}`);
    await until(() => source.has("message", 3));
    await say("live");
    await arrives(() => source.has("message", 4),
                  `${name}: the stream goes on`);
    is(await source.data(), ["m1", "m2", "m3", "live"],
       `${name}: what was missed, once and in order`);
    is(await source.data("rt.gap"), [], `${name}: no gap`);
    const again = await poll(page, path, `"${await source.lastId()}"`);
    is(again.status, 304, `${name}: the stream's id is an ETag: 304`);
    await source.close();
}


async function gap(page) {
    const channel = "orders:gap";
    await warm(page, channel);
    await redis("publish", channel, "latest");
    await until(async () => (await poll(page, `/rt/${channel}`)).status === 200);
    const source = await Source.open(page,
        `/rt/${channel}?last_event_id=no-cursor-of-ours`);
    await arrives(() => source.has("rt.gap"), "unknown cursor: rt.gap");
    const told = JSON.parse((await source.data("rt.gap"))[0] ?? "{}");
    is(told.channel, channel, "unknown cursor: the gap names the channel");
    ok(told.reason, "unknown cursor: the gap has a reason");
    await arrives(() => source.has("message"), "unknown cursor: then the latest");
    is(await source.data(), ["latest"], "unknown cursor: that alone");
    await source.close();
}


/* the embedded hub keeps all over a reload and over killed workers */
async function embedded(page, how, act) {
    const name = `embedded, ${how}`;
    const channel = `embedded-${how.replace(/\W/g, "-")}`;
    const say = (text) => publishByHttp(`/mem-publish?channel=${channel}`, text);
    const source = await Source.open(page, `/mem/${channel}`);
    const expected = [];
    const publish = async (text) => {
        expected.push(text);
        await say(text);
    };
    await publish("before 1");
    await publish("before 2");
    await until(() => source.has("message", 2));
    await act();
    for (let i = 1; i <= 5; i++) {
        await publish(`meanwhile ${i}`);
    }
    await arrives(() => source.has("open", 2),
                  `${name}: EventSource reconnects by itself`, 20);
    await publish("after");
    await arrives(async () => (await source.data()).includes("after"),
                  `${name}: the stream goes on`);
    is(await source.data(), expected, `${name}: all, once, in order`);
    is(await source.data("rt.gap"), [], `${name}: no gap`);
    await source.close();
}


/* fed by Redis, what came while nobody was subscribed is told as a gap */
async function fed(page, how, act) {
    const name = `Redis, ${how}`;
    const channel = `orders:${how.replace(/\W/g, "-")}`;
    await warm(page, channel);
    const source = await Source.open(page, `/rt/${channel}`);
    const said = [];
    const publish = async (text) => {
        said.push(text);
        await redis("publish", channel, text);
    };
    await publish("before");
    await until(() => source.has("message"));
    await act(publish);
    await arrives(() => source.has("open", 2),
                  `${name}: EventSource reconnects by itself`, 20);
    await feedIsLive();
    let n = 0;
    await arrives(async () => {
        await publish(`after ${++n}`);
        return (await source.data()).some((text) => text.startsWith("after"));
    }, `${name}: the stream goes on`, 20);
    await until(async () => (await source.data()).includes(`after ${n}`));
    const got = await source.data();
    const gaps = await source.data("rt.gap");
    const missing = said.filter((text) => !got.includes(text));
    ok(missing.length === 0 || gaps.length > 0,
       `${name}: nothing lost, or a gap told`,
       `missing: ${missing.join(", ")}\ngot: ${got.join(", ")}`);
    is(got, said.filter((text) => got.includes(text)),
       `${name}: in order, none twice`);
    await source.close();
}


/* the demo page, by what a person sees of it */

async function log(page, id) {
    return page.locator(`#${id} pre`).allInnerTexts();
}

async function number(page, id) {
    return Number(await page.locator(`#${id}`).innerText());
}

async function pageFollows(page) {
    await arrives(async () => await page.locator("#sse-state").innerText()
                  === "open", "page: the stream is open");
    await arrives(async () => await page.locator("#feed-state").innerText()
                  === "live", "page: the feed is live");
    await redis("publish", "orders:42", "from redis-cli");
    await arrives(async () => (await log(page, "sse-log"))[0]
                  === "from redis-cli", "page: a publish is in the stream");
    await arrives(async () => (await log(page, "poll-log"))[0]
                  === "from redis-cli", "page: and in the poll", 15);
    const before = await number(page, "poll-304");
    await arrives(async () => await number(page, "poll-304") > before,
                  "page: then polls are 304", 20);
    await arrives(async () => await page.locator("#cursor-state").innerText()
                  === "the same place", "page: ETag and last id are the same");
}

async function pagePublishes(page) {
    const text = "<b>two</b>\nlines & \"quotes\" 😀";
    const box = page.getByRole("textbox", { name: "Message" });
    await box.fill(text);
    await page.getByRole("button", { name: "Publish" }).click();
    await arrives(async () => (await page.locator("#publish-result")
        .innerText()).startsWith("Accepted (202)"), "page: publish is accepted");
    await arrives(async () => (await log(page, "sse-log"))[0] === text,
                  "page: it arrives, and is text");
    is(await page.locator("#sse-log b").count(), 0, "page: no markup from it");

    await box.fill("by keyboard");
    await box.press("Control+Enter");
    await arrives(async () => (await log(page, "sse-log"))[0]
                  === "by keyboard", "page: Ctrl+Enter publishes");
    const command = await page.locator("#command").innerText();
    is(command, `redis-cli -p ${process.env.RT_REDIS_PORT} publish `
       + "orders:42 'by keyboard'", "page: the line for a shell");
}

/* close the stream, hold the poll, publish, open from the ETag */
async function pageHandsOver(page) {
    const button = (name) => page.getByRole("button", { name });
    const etag = async () => cursor(await page.locator("#poll-etag")
        .innerText());
    await arrives(async () => (await log(page, "poll-log"))[0]
                  === "by keyboard", "page: the poll has caught up", 20);
    await button("Pause").click();
    await button("Close").click();
    const polled = await etag();
    await redis("publish", "orders:42", "missed 1");
    await redis("publish", "orders:42", "missed 2");
    const before = (await log(page, "sse-log")).length;
    await button("Open the stream from the poll's ETag").click();
    await arrives(async () => (await log(page, "sse-log")).length
                  === before + 2, "page: the button opens the stream");
    await redis("publish", "orders:42", "live");
    await arrives(async () => (await log(page, "sse-log"))[0] === "live",
                  "page: which goes on");
    is((await log(page, "sse-log")).slice(0, 4),
       ["live", "missed 2", "missed 1", "by keyboard"],
       "page: nothing lost, nothing twice");
    is(await etag(), polled, "page: the poll has stood still meanwhile");
    is(await number(page, "sse-gaps"), 0, "page: no gap");
    await button("Go on").click();
}

/* the panel of rt.js: what it does, and why */
async function pageAdapts() {
    const page = await open("/?channel=orders:adapts");
    const text = (id) => page.locator(`#adaptive-${id}`).innerText();
    await arrives(async () => await text("state") === "polls"
                  && (await text("why")).startsWith("Few viewers"),
                  "page: adaptive polls, and says why");
    await redis("publish", "orders:adapts", "<i>adapts</i>");
    await arrives(async () => await text("latest") === "<i>adapts</i>",
                  "page: adaptive has the message, as text", 20);
    await page.screenshot({ path: `${dir}/adaptive-polls.png` });
    const viewers = await Viewers.open("/rt/orders:adapts", 6);
    await arrives(async () => await text("state") === "streams"
                  && (await text("why")).startsWith("Many viewers"),
                  "page: adaptive streams when there are many", 20);
    await redis("publish", "orders:adapts", "by stream");
    await arrives(async () => await text("latest") === "by stream",
                  "page: adaptive goes on by the stream");
    is(await text("count"), "2 messages", "page: adaptive has each once");
    await page.screenshot({ path: `${dir}/adaptive-streams.png` });
    viewers.leave();
    await page.close();
}

async function pageSwitchesHub(page) {
    await page.getByRole("combobox", { name: "Fed by" })
        .selectOption("nginx alone");
    await page.getByRole("textbox", { name: "Channel" }).fill("room:1");
    await page.getByRole("button", { name: "Follow" }).click();
    await arrives(async () => await page.locator("#feed-state").innerText()
                  === "embedded", "page: the hub of nginx alone");
    await page.getByRole("textbox", { name: "Message" }).fill("in memory");
    await page.getByRole("button", { name: "Publish" }).click();
    await arrives(async () => (await log(page, "sse-log"))[0] === "in memory",
                  "page: publishes to the embedded hub");
    await arrives(async () => (await log(page, "poll-log"))[0] === "in memory",
                  "page: and polls it", 20);
    ok(page.url().includes("room%3A1"), "page: the address keeps the channel");
}

async function pageFits() {
    for (const [width, height] of [[1440, 900], [390, 844]]) {
        for (const colorScheme of ["light", "dark"]) {
            const page = await open("/", { viewport: { width, height },
                                           colorScheme });
            await until(async () => (await log(page, "sse-log")).length);
            const wide = await page.evaluate(
                () => document.documentElement.scrollWidth);
            ok(wide <= width, `page: fits ${width} px, ${colorScheme}`,
               `${wide} px wide`);
            await page.screenshot({ fullPage: true,
                path: `${dir}/page-${width}-${colorScheme}.png` });
            await page.close();
        }
    }
}

/* the page comes back by itself, and so does its poll */
async function pageReconnects(act, how) {
    const page = await open("/?channel=reconnect&hub=mem");
    const say = (text) => publishByHttp("/mem-publish?channel=reconnect", text);
    await until(async () => await page.locator("#sse-state").innerText()
                === "open");
    await say(`before ${how}`);
    await until(async () => (await log(page, "sse-log"))[0]
                === `before ${how}`);
    const opened = await number(page, "sse-opens");
    await act();
    await say(`meanwhile ${how}`);
    await arrives(async () => await number(page, "sse-opens") > opened,
                  `page: reconnects after ${how}`, 20);
    await arrives(async () => (await log(page, "sse-log"))[0]
                  === `meanwhile ${how}`, `page: with what came meanwhile`);
    const polls = await number(page, "poll-304") + await number(page, "poll-200");
    await arrives(async () => await number(page, "poll-304")
                  + await number(page, "poll-200") > polls,
                  "page: and goes on polling", 40);
    await page.close();
}


async function main() {
    await start();
    if (!await feedIsLive()) {
        throw new Error(`no live feed: ${JSON.stringify(await status("app"))}`);
    }

    const page = await open("/");
    await pageFollows(page);
    await pagePublishes(page);
    await pageHandsOver(page);
    await pageSwitchesHub(page);
    await page.close();
    await pageAdapts();
    await pageFits();

    /* a quiet page of the same origin for what follows */
    const plain = await open("/favicon.svg");
    await payloads(plain);
    await conditional(plain);
    await handover(plain, "app");
    await handover(plain, "mem");
    await gap(plain);
    is(complaints, [], "no page has complained on the console");

    await embedded(plain, "reload", reload);
    await embedded(plain, "killed workers", killWorkers);
    await fed(plain, "reload", async (publish) => {
        await publish("during 1");
        await reload();
        await publish("during 2");
    });
    await fed(plain, "killed workers", async (publish) => {
        await killWorkers();
        await publish("during");
    });
    await pageReconnects(reload, "a reload");
    await pageReconnects(killWorkers, "killed workers");
}

try {
    await main();
    console.log(`done - ${url}`);
} catch (error) {
    ok(false, "the browser tests run to their end", error.stack);
} finally {
    await stop();
}
