/*
 * A channel of ngx_rt as a query of TanStack Query 5, for every framework
 * that it has an adapter for:
 *
 *     const { data } = useQuery(rtQuery("/rt/orders:42"));
 *
 * It is fetched as often as RT-Poll-Interval advises, however many observers
 * it has, and not in a hidden tab.  A 304 costs no parsing and gives the very
 * same data, so that nothing that looks at the data alone is drawn again.
 * null: nothing is known of the channel yet.
 *
 * parse: what becomes of the text, JSON.parse for example.
 */

/* what the answers said, by the cache's query: it goes when that goes */
const known = new WeakMap();

const header = (response, name) => response.headers.get(name) ?? "";

/* an application may have thrown the data away or put something else there:
 * on a 304 it is what the ETag stands for */
async function ask(url, parse, last, signal) {
    const response = await fetch(url, {
        signal, cache: "no-store",
        headers: last.etag ? { "If-None-Match": last.etag } : {},
    });
    const { status } = response;
    if (![200, 204, 304].includes(status)) {
        throw Object.assign(new Error(`${url}: ${status}`), {
            retryAfter: 1000 * (Number(header(response, "Retry-After")) || 0),
        });
    }
    const interval = Number(header(response, "RT-Poll-Interval")) || 5;
    const now = {
        ...last, etag: header(response, "ETag"),
        wait: 1000 * interval * (0.9 + Math.random() / 5),
    };
    if (status === 304) {
        return now;
    }
    const text = status === 200 ? await response.text() : null;
    /* while nginx is without its Redis every answer is a 200 */
    return text === last.text ? now
        : { ...now, text, data: text === null ? null : parse(text) };
}

export function rtQuery(url, parse = (text) => text) {
    return {
        queryKey: ["rt", url],
        async queryFn({ client, queryKey, signal }) {
            const query = client.getQueryCache()
                .find({ queryKey, exact: true });
            const now = await ask(url, parse, known.get(query) ?? {}, signal);
            known.set(query, now);
            return now.data;
        },
        refetchInterval: (query) => known.get(query)?.wait ?? 5000,
        structuralSharing: false,       /* ours is the same, or it is new */
        notifyOnChangeProps: ["data", "error", "status"],
        retryDelay: (failures, { retryAfter = 0 }) => Math.max(retryAfter,
            Math.min(30000, 1000 * 2 ** failures)) * (1 + Math.random() / 2),
    };
}
