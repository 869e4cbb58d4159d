/*
 * conf/www/tanstack.js with the query-core of TanStack Query, in node.
 * Started by t/82-tanstack.t, see harness.mjs; the locations are there.
 */

/* as in a page: on a server query-core does not refetch */
globalThis.window ??= globalThis;

import { readFileSync, writeFileSync } from "node:fs";
import {
    arrives, dir, feedIsLive, is, ok, redis, status, until, url,
} from "./harness.mjs";

const { QueryClient, QueryObserver, focusManager }
    = await import("@tanstack/query-core");
const www = new URL("../../conf/www/", import.meta.url);
const { rtQuery } = await import(new URL("tanstack.js", www));

/* every request that the recipe makes */
const log = [];
const real = fetch;
globalThis.fetch = async (...args) => {
    const entry = { path: String(args[0]).slice(url.length),
                    at: performance.now(),
                    etag: args[1]?.headers["If-None-Match"] ?? "" };
    log.push(entry);
    const response = await real(...args);
    entry.status = response.status;
    return response;
};
const asked = (path) => log.filter((entry) => entry.path === path
    && entry.status);

const client = new QueryClient();
client.mount();

function observe(options, from = client) {
    const observer = new QueryObserver(from, options);
    const results = [];
    const leave = observer.subscribe((result) => results.push(result));
    return { observer, results, leave,
             get data() { return observer.getCurrentResult().data; } };
}

async function say(channel, text) {
    await redis("publish", channel, text);
}


async function many() {
    const path = "/rt/q:many";
    const before = (await status("app")).polls;
    let parsed = 0;
    const parse = (text) => {
        parsed++;
        return JSON.parse(text);
    };
    const seen = Array.from({ length: 50 }, () => observe(
        rtQuery(url + path, parse)));
    await arrives(() => seen[0].data === null, "nothing is known: null");
    await say("q:many", '{"total":1,"lines":[1,2]}');
    await arrives(() => seen.every(({ data }) => data?.total === 1),
                  "all observers have the data");
    const { data } = seen[0];
    ok(seen.every((one) => one.data === data), "the same object for all");
    const calls = seen.map(({ results }) => results.length);
    const renewed = asked(path).length;
    await arrives(() => asked(path).length >= renewed + 4, "polls go on");
    ok(asked(path).slice(renewed).every((entry) => entry.status === 304
        && entry.etag), "each with the ETag, each 304");
    ok(seen.every((one) => one.data === data), "a 304: the very same data");
    is(seen.map(({ results }) => results.length), calls,
       "a 304: no observer is called");
    is(parsed, 1, "a 304: nothing is parsed");
    const count = asked(path).length;
    const [one, two, three] = asked(path).slice(-3).map(({ at }) => at);
    ok(two - one > 850 && three - two > 850 && Math.min(two - one, three - two)
       < 10000, "one request for all, at the advised interval",
       `${two - one} ${three - two}`);
    const polls = (await status("app")).polls;
    is([polls.hit - before.hit, polls.miss - before.miss],
       [asked(path).filter((entry) => entry.status === 304).length,
        asked(path).filter((entry) => entry.status !== 304).length],
       `as nginx has counted them (${count})`);

    await say("q:many", '{"total":2,"lines":[1,2]}');
    await arrives(() => seen.every((one) => one.data.total === 2),
                  "a change comes to all");
    is(seen.map(({ results }) => results.length), calls.map((n) => n + 1),
       "by one call");
    is(parsed, 2, "parsed once");

    /* put there by the application, thrown away by it */
    client.setQueryData(["rt", url + path], { total: "mine" });
    await arrives(() => seen[0].data.total === 2,
                  "a 304 puts right what was put there");
    await client.resetQueries({ queryKey: ["rt", url + path] });
    is(seen[0].data?.total, 2, "and what was thrown away");
    for (const { leave } of seen) {
        leave();
    }
    const after = log.filter((entry) => entry.path === path).length;
    const clock = observe(rtQuery(`${url}/rt/q:clock`));
    await until(() => asked("/rt/q:clock").length >= 4);
    is(log.filter((entry) => entry.path === path).length, after,
       "without observers: without requests");
    clock.leave();

    /* another one later: from the ETag */
    const late = observe(rtQuery(url + path, parse));
    await until(() => asked(path).length > after);
    is(asked(path).at(-1).status, 304, "observed again: 304");
    late.leave();
}


async function follows() {
    const path = "/slow/q:slow";
    const one = observe(rtQuery(url + path));
    await arrives(() => asked(path).length >= 3,
                  "another interval is followed", 15);
    const at = asked(path).map((entry) => entry.at);
    ok(at[2] - at[1] > 2600 && at[2] - at[1] < 12000, "3 s",
       String(at[2] - at[1]));
    one.leave();
}


async function rests() {
    const path = "/rt/q:hidden";
    await say("q:hidden", "one");
    const one = observe(rtQuery(url + path));
    await arrives(() => one.data === "one", "seen: polls");
    focusManager.setFocused(false);
    const before = log.filter((entry) => entry.path === path).length;
    await say("q:hidden", "two");
    const end = performance.now() + 2500;
    await until(() => performance.now() > end);
    is(log.filter((entry) => entry.path === path).length, before,
       "hidden: asks nothing");
    focusManager.setFocused(true);
    await arrives(() => one.data === "two", "seen again: the news");
    one.leave();

    const slow = observe(rtQuery(`${url}/slower/q:hidden`));
    await until(() => slow.data === "two");
    focusManager.setFocused(false);
    await say("q:hidden", "three");
    focusManager.setFocused(true);
    await arrives(() => slow.data === "three",
                  "at once, whatever the interval");
    slow.leave();
    focusManager.setFocused(undefined);
}


async function errors() {
    const path = "/rt/q:errors";
    await say("q:errors", "one");
    const own = new QueryClient();
    own.mount();
    const one = observe(rtQuery(url + path), own);
    await until(() => one.data === "one");
    const before = globalThis.fetch;
    let refused;
    globalThis.fetch = (...args) => {
        if (args[0] !== url + path) {
            return before(...args);
        }
        refused ??= performance.now();
        globalThis.fetch = before;
        return Promise.resolve(new Response("", { status: 503,
            headers: { "Retry-After": "3" } }));
    };
    await until(() => refused, 10);
    const count = log.filter((entry) => entry.path === path).length;
    const next = await until(() => log.filter((entry) =>
        entry.path === path)[count], 15);
    ok(next && next.at - refused > 2950, "an error: Retry-After is honoured",
       String(next?.at - refused));
    await arrives(() => one.observer.getCurrentResult().fetchStatus === "idle"
                  && asked(path).at(-1).status === 304, "then it goes on");
    is(one.data, "one", "with the data as it was");
    one.leave();
}


/* the lines of README.md as they stand there */
async function readme() {
    const [, code] = /^```js\n(import \{ Query.*?)^```/ms.exec(readFileSync(
        new URL("../../README.md", www), "utf8")) ?? [];
    if (!ok(code, "README.md has its example")) {
        return;
    }
    await say("orders:42", '{"total":"9.90"}');
    await until(async () => (await real(`${url}/rt/orders:42`)).status
                === 200);
    const at = (name) => JSON.stringify(import.meta.resolve(name));
    const file = `${dir}/readme.mjs`;
    writeFileSync(file, code.replace('"@tanstack/query-core"',
                                     at("@tanstack/query-core"))
        .replace('"./tanstack.js"', at(new URL("tanstack.js", www).href))
        .replaceAll('"/rt/', `"${url}/rt/`));
    const shown = [];
    globalThis.show = (data) => shown.push(data);
    await import(file);
    await arrives(() => shown.some((data) => data?.total === "9.90"),
                  "README.md: the example works");
    await until(() => asked("/rt/orders:42").at(-1)?.status === 304);
    is(shown.filter((data) => data).length, 1, "README.md: shows it once");
}


try {
    await feedIsLive();
    await many();
    await Promise.all([follows(), errors(), readme()]);
    await rests();
    console.log(`done - ${url}`);
} catch (error) {
    ok(false, "the tests of the recipe run to their end", error.stack);
}
process.exit();
