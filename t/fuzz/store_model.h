
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * For t/fuzz/store.c: how the zone is compared with the model.
 */


/* the message at off, which must be there */

static void
same(uint64_t off, const msg_t *m)
{
    u_char              *body, digest[NGX_RT_TAG_LEN];
    ngx_rt_record_sh_t   rec;

    check(ngx_rt_log_peek(st, off, &rec) == NGX_OK);
    check(rec.type == NGX_RT_MESSAGE && rec.seq == m->seq
          && rec.event_len == m->event_len && rec.data_len == m->len
          && rec.time == (uint32_t) m->time);

    digest_of(m, digest);
    check(memcmp(digest, rec.tag, NGX_RT_DIGEST_LEN) == 0);

    /* exactly as long as it may be */

    body = malloc((size_t) m->event_len + m->len + 1);
    check(body != NULL);

    check(ngx_rt_log_body(st, off, &rec, body) == NGX_OK);
    check(memcmp(body, event_of(m), m->event_len) == 0);
    check(memcmp(body + m->event_len, data_of(m), m->len) == 0);

    free(body);
}


static const msg_t *
by_seq(uint64_t seq)
{
    uint32_t  i;

    for (i = nmessages; i; i--) {
        if (messages[i - 1].seq == seq) {
            return &messages[i - 1];
        }
    }

    return NULL;
}


static channel_t *
by_name(const u_char *name, size_t len)
{
    uint32_t  i;

    for (i = 0; i < CHANNELS; i++) {
        if (channels[i].name.len == len
            && memcmp(channels[i].name.data, name, len) == 0)
        {
            return &channels[i];
        }
    }

    return NULL;
}


/* a message was committed: from now on it is there */

static void
committed(uint64_t off, ngx_rt_record_sh_t *rec)
{
    msg_t      *m;
    channel_t  *c;

    check(pending.op == PUBLISH && !pending.published);
    check(nmessages < MESSAGES);

    m = &messages[nmessages++];
    *m = pending.msg;
    m->seq = rec->seq;
    same(off, m);

    c = &channels[m->channel];
    c->list[c->n++] = (uint16_t) (m - messages);

    pending.published = rec->seq;
}


static void
follow_record(uint64_t off, ngx_rt_record_sh_t *rec)
{
    u_char      buf[NGX_RT_CHANNEL_MAX];
    channel_t  *c;

    if (rec->type == NGX_RT_PAD || (rec->flags & NGX_RT_COPY)) {
        return;
    }

    /* never twice, and nothing that was said to have been read */

    check(rec->seq > pos_seq && rec->seq > pos_told);
    pos_seq = rec->seq;

    switch (rec->type) {

    case NGX_RT_MESSAGE:
        committed(off, rec);
        return;

    case NGX_RT_CONFIRM:
        check(pending.op == CONFIRM);
        pending.confirmed = rec->seq;
        return;

    case NGX_RT_DROP:
        check(pending.op == PUBLISH);
        pending.dropped = rec->seq;
        return;
    }

    check(rec->data_len <= NGX_RT_CHANNEL_MAX);
    check(ngx_rt_log_body(st, off, rec, buf) == NGX_OK);

    c = by_name(buf, rec->data_len);
    check(c != NULL);

    if (rec->type == NGX_RT_EVICT) {
        c->evicted = 1;
        forgotten = rec->seq;
        return;
    }

    check(rec->type == NGX_RT_NAME && c == &channels[pending.channel]);
    pending.named = rec->seq;
    pending.forgotten = forgotten;
}


/* as ngx_rt_hub_run(), but never late */

static void
follow(void)
{
    uint64_t             seq;
    ngx_int_t            rc;
    ngx_rt_record_sh_t   rec;

    for ( ;; ) {
        seq = ngx_rt_store_seq(st);
        rc = ngx_rt_log_peek(st, pos, &rec);

        if (rc == NGX_DONE) {
            pos_told = ngx_max(pos_told, seq);
            return;
        }

        check(rc == NGX_OK);
        follow_record(pos, &rec);
        pos += rec.size;
    }
}


/* the same, some records at a time: in the order they were published, or
 * overrun */

static void
follow_lazily(unsigned n)
{
    ngx_int_t            rc;
    ngx_rt_record_sh_t   rec;

    while (n--) {
        rc = ngx_rt_log_peek(st, lazy, &rec);

        if (rc == NGX_DONE) {
            check(lazy_next == nmessages);
            return;
        }

        if (rc == NGX_DECLINED) {
            lazy = st->sh->head;
            lazy_next = nmessages;
            return;
        }

        if (rec.type == NGX_RT_MESSAGE && !(rec.flags & NGX_RT_COPY)) {
            check(lazy_next < nmessages);
            same(lazy, &messages[lazy_next++]);
        }

        lazy += rec.size;
    }
}


/* what a client is told: another version for another content, never less */

static void
tell(channel_t *c, const ngx_rt_view_t *view)
{
    check(view->version >= c->told);
    check(view->version > c->told || view->msg_seq == c->told_seq);

    c->told = view->version;
    c->told_seq = view->msg_seq;
}


/* as a poll does, at any moment */

static void
look(channel_t *c)
{
    size_t         len;
    u_char         buf[NGX_RT_CHANNEL_MAX], digest[NGX_RT_TAG_LEN];
    const msg_t   *m;
    ngx_rt_view_t  view;

    reading = 1;

    if (ngx_rt_table_look(st, &c->key, (time_t) (now / 1000), &view)
        == NGX_OK)
    {
        tell(c, &view);

        if (view.msg_seq) {
            m = by_seq(view.msg_seq);
            check(m != NULL && &channels[m->channel] == c);
            digest_of(m, digest);
            check(memcmp(digest, view.tag, NGX_RT_DIGEST_LEN) == 0);
            same(view.latest, m);
        }

        if (ngx_rt_query_name(st, view.entry, view.gen, buf, &len) == NGX_OK) {
            check(by_name(buf, len) == c);
        }
    }

    reading = 0;
}


/* floor after the limits have been applied to the list; how many go */

static uint64_t
limited(channel_t *c, uint32_t *n)
{
    uint64_t      floor, history;
    const msg_t  *m;

    floor = c->floor;
    history = ngx_max(st->history, 1);

    for (*n = 0; *n + 1 < c->n; (*n)++) {
        m = &messages[c->list[*n]];

        if (c->n - *n <= history
            && (st->history_time == 0 || (int32_t) (now - m->time) <= 0
                || (uint32_t) (now - m->time) <= st->history_time))
        {
            break;
        }

        floor = m->seq;
    }

    return floor;
}


/* the channel retains its list above the floor, and nothing else */

static void
retained(channel_t *c, const ngx_rt_view_t *view, unsigned bytes)
{
    uint64_t             off;
    uint32_t             i;
    ngx_int_t            n;
    const msg_t         *m;
    ngx_rt_entry_sh_t   *e;
    ngx_rt_record_sh_t  *rec;
    static uint64_t      offs[MESSAGES], seqs[MESSAGES];

    n = ngx_rt_store_history(st, c->entry, c->gen, 0, (uint64_t) -1, offs,
                             seqs, MESSAGES);

    check(n == (ngx_int_t) c->n && n == (ngx_int_t) view->count);

    e = &st->entries[c->entry];
    off = e->oldest;

    for (i = 0; i < c->n; i++) {
        m = &messages[c->list[i]];

        check(seqs[i] == m->seq && offs[i] == off);
        check(off >= st->sh->tail && off < st->sh->head);

        rec = ngx_rt_log_at(st, off);
        check(rec->flags & NGX_RT_LIVE);
        off = rec->next;

        if (bytes) {
            same(offs[i], m);
        }
    }

    check(off == NGX_RT_NONE);

    if (c->n == 0) {
        check(view->msg_seq == 0 && view->latest == NGX_RT_NONE);
        return;
    }

    check(view->msg_seq == seqs[n - 1] && view->latest == offs[n - 1]);
}


static void
get_sums(sums_t *s)
{
    ngx_rt_zone_sh_t  *sh;

    sh = st->sh;

    s->evicted = sh->evicted;
    s->expired = sh->expired;
    s->trimmed = sh->trimmed;
    s->messages = sh->messages;
    s->bytes = sh->bytes;
    s->dropped = sh->dropped;
    s->gaps = sh->feed.gaps;
    s->seq = sh->seq;
    s->pinned = sh->pinned;
    s->history = sh->history;
    s->channels = sh->channels;
}


/* it is gone, and the log has told so; what came since is of its next life */

static void
verify_gone(channel_t *c, uint32_t *most)
{
    uint32_t  n;

    check(c->evicted);

    for (n = 0; n < c->n && messages[c->list[n]].seq <= c->lost; n++) {
        /* void */
    }

    *most += n;

    c->n -= n;
    memmove(c->list, c->list + n, c->n * sizeof(c->list[0]));

    c->there = 0;
    c->asked = 0;
    c->wanted = 0;
}


/* it was made in this step */

static void
verify_made(channel_t *c, const ngx_rt_view_t *view, unsigned crashed)
{
    check(c == &channels[pending.channel] && pending.named);

    c->there = 1;
    c->entry = view->entry;
    c->gen = view->gen;
    c->version = pending.named;
    c->floor = st->embedded ? pending.forgotten : pending.named;
    c->confirm_seq = 0;
    c->confirmed = st->embedded;

    check(view->floor >= c->lost);

    if (crashed && c->n == 0) {
        c->floor = view->floor;
    }
}


/* what went from the list for lack of memory: at least and at most */

static void
verify_channel(channel_t *c, const ngx_rt_view_t *view, unsigned crashed,
    uint32_t *least, uint32_t *most)
{
    uint32_t   n, limit;
    uint64_t   floor, version;
    unsigned   target;

    target = (c == &channels[pending.channel]);
    version = c->version;
    floor = c->floor;
    limit = 0;

    if (target && pending.published) {
        version = pending.published;
        c->lost = pending.published;

        if (!crashed) {
            floor = limited(c, &limit);
        }
    }

    if (target && pending.dropped) {
        version = pending.dropped;
        floor = pending.dropped;
        limit = c->n;
    }

    if (target && pending.confirmed) {
        c->confirm_seq = pending.confirmed;
        c->confirmed = 1;

        if (!crashed) {
            version = pending.confirmed;
            floor = c->n ? floor : pending.confirmed;
        }
    }

    for (n = 0; n < c->n && messages[c->list[n]].seq <= view->floor; n++) {
        /* void */
    }

    /* the latest stays */

    check(n < c->n || n == 0 || (target && pending.dropped));

    if (n > limit) {
        floor = messages[c->list[n - 1]].seq;
    }

    if (crashed) {
        check(view->version >= version && view->version <= st->sh->seq);
        check(view->floor >= floor && view->floor <= st->sh->seq);
        check(view->floor == floor || n == c->n);

        /* the history may be over its limit until the next message */

    } else {
        check(view->version == version);
        check(view->floor == floor && n >= limit);
        *least += n - limit;
    }

    *most += n;

    c->n -= n;
    memmove(c->list, c->list + n, c->n * sizeof(c->list[0]));

    c->version = view->version;
    c->floor = view->floor;
}


static void
verify_feed(channel_t *c, const ngx_rt_view_t *view, unsigned crashed)
{
    if (crashed && c == &channels[pending.channel]
        && pending.op == CONFIRM && pending.confirmed)
    {
        /* done or not, but not half */

        check(!view->confirmed || view->confirm_seq == pending.confirmed);
        c->confirmed = view->confirmed;
        c->confirm_seq = view->confirm_seq;
    }

    check(view->confirmed == c->confirmed);
    check(view->confirm_seq == c->confirm_seq);
}


/* the want queue holds what is flagged, each once */

static void
verify_queue(void)
{
    uint32_t  i, n, flagged;

    flagged = 0;

    for (i = 1; i < st->sh->top; i++) {
        flagged += (st->entries[i].flags & NGX_RT_QUEUED) ? 1 : 0;
    }

    n = 0;

    for (i = st->sh->feed.want; i != NGX_RT_NONE; i = st->entries[i].want) {
        check(i < st->sh->top && (st->entries[i].flags & NGX_RT_QUEUED));
        check(++n <= flagged);
    }

    check(n == flagged);

    for (i = 0; i < CHANNELS; i++) {
        check(!channels[i].there || !channels[i].wanted
              || (st->entries[channels[i].entry].flags & NGX_RT_QUEUED));
    }
}


static void
verify_sums(unsigned crashed, uint32_t gone, uint32_t least, uint32_t most)
{
    sums_t      s;
    uint32_t    i, n;
    uint64_t    forgot, pinned, history;
    channel_t  *c;

    get_sums(&s);

    pinned = 0;
    history = 0;
    n = 0;

    for (c = channels; c < channels + CHANNELS; c++) {

        if (!c->there) {
            continue;
        }

        n++;
        pinned += ngx_rt_log_size(c->name.len);

        for (i = 0; i < c->n; i++) {
            if (i + 1 == c->n) {
                pinned += size_of(&messages[c->list[i]]);
            } else {
                history += size_of(&messages[c->list[i]]);
            }
        }
    }

    check(s.channels == n && s.pinned == pinned && s.history == history);
    check(pinned <= ngx_rt_retain_pinned(st->sh));
    check(s.seq >= before.seq);
    check(ngx_rt_store_used(st) <= zone_size);

    forgot = s.evicted - before.evicted + s.expired - before.expired;

    check(forgot <= gone && gone <= forgot + crashed);
    check(s.trimmed - before.trimmed <= most);
    check(s.trimmed - before.trimmed >= least);

    /* nothing goes that there is room for */

    history = before.pinned + before.history
              + 2 * ngx_rt_log_size(NGX_RT_CHANNEL_MAX)
              + size_of(&pending.msg);

    check(s.trimmed == before.trimmed
          || history > ngx_rt_retain_all(st->sh));

    check(s.evicted == before.evicted
          || before.channels + 1 >= st->sh->nentries - 1
          || before.pinned + size_of(&pending.msg)
             + ngx_rt_log_size(NGX_RT_CHANNEL_MAX)
             > ngx_rt_retain_pinned(st->sh));

    if (crashed) {
        check(s.messages - before.messages <= 1);
        check(s.gaps - before.gaps <= 1);
        return;
    }

    check(s.messages - before.messages == (pending.published ? 1 : 0));
    check(s.bytes - before.bytes == (pending.published ? pending.msg.len : 0));
    check(damaged || st->sh->head - st->sh->tail + 2 * ngx_rt_log_max(st->sh)
                     <= st->sh->log_size);
}


/* the whole zone against the model */

static void
verify(unsigned crashed, unsigned bytes)
{
    uint32_t        i, gone, least, most;
    channel_t      *c;
    ngx_rt_view_t   view;

    follow();

    check(st->sh->limit >= st->sh->head && st->sh->tail <= st->sh->head
          && st->sh->head - st->sh->tail <= st->sh->log_size);
    check(!st->sh->writing);

    gone = 0;
    least = 0;
    most = 0;

    for (c = channels; c < channels + CHANNELS; c++) {

        i = ngx_rt_table_find(st, &c->key);

        if (i != NGX_RT_NONE) {
            ngx_rt_table_copy(st, i, &view);
            check(ngx_rt_table_view(st, i, view.gen, &view) == NGX_OK);
        }

        if (c->there
            && (i == NGX_RT_NONE || i != c->entry || view.gen != c->gen))
        {
            verify_gone(c, &most);
            gone++;
        }

        if (i == NGX_RT_NONE) {
            /* made and not finished */
            check(c->n == 0);
            continue;
        }

        tell(c, &view);

        if (!c->there) {
            verify_made(c, &view, crashed);
        }

        verify_channel(c, &view, crashed, &least, &most);
        verify_feed(c, &view, crashed);
        retained(c, &view, bytes);
    }

    if (crashed) {
        /* in doubt */
        check(st->sh->forgotten >= forgotten);
        check(st->sh->forgotten <= st->sh->seq + 1);
        forgotten = st->sh->forgotten;
    }

    verify_sums(crashed, gone, least, most);
    verify_queue();

    for (c = channels; c < channels + CHANNELS; c++) {
        c->evicted = 0;
    }
}
