
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Inside layer 1: what its files have of each other.
 */


#ifndef _NGX_RT_STORE_H_INCLUDED_
#define _NGX_RT_STORE_H_INCLUDED_


#include <ngx_rt_rate.h>


/*
 * Inside layer 1, for nobody else.  The caller holds the mutex, and has said
 * so by ngx_rt_store_begin() where anything is changed.
 */

typedef uint64_t __attribute__((__may_alias__))  ngx_rt_word_t;
typedef uint32_t __attribute__((__may_alias__))  ngx_rt_half_t;


/* marks the zone as being changed, until unlock */
void ngx_rt_store_begin(ngx_rt_store_t *st);

/* NGX_OK, or NGX_ABORT: the term is over */
ngx_int_t ngx_rt_store_term(ngx_rt_store_t *st, uint64_t term);

/* takes the lock for a change of that channel.  NGX_OK; without the lock:
 * NGX_ABORT, the term is over; NGX_DECLINED, the channel is not in the table */
ngx_int_t ngx_rt_store_named(ngx_rt_store_t *st, uint64_t term,
    const ngx_str_t *name, uint32_t *entry);

/* ngx_rt_store.c: a new channel, NGX_RT_NONE: no room; one of an embedded hub
 * that is not of this session becomes certain */
uint32_t ngx_rt_store_make(ngx_rt_store_t *st, const ngx_rt_key_t *key,
    const ngx_str_t *name, time_t now);
void ngx_rt_store_trust(ngx_rt_store_t *st, uint32_t i);

/* tells that everything up to seq is visible */
#define ngx_rt_store_done(st, s)                                              \
    __atomic_store_n(&(st)->sh->seq, (s), __ATOMIC_RELEASE)


/* ngx_rt_log.c, the writer's side */

/*
 * off % log_size, for the holder of the lock.  What is in the log are two
 * turns of the ring at the most, so if one of them is kept in st a division
 * is needed once in a turn.
 */
static ngx_inline uint64_t
ngx_rt_log_pos(ngx_rt_store_t *st, uint64_t off)
{
    uint64_t  pos, size;

    size = st->sh->log_size;
    pos = off - st->turn;

    if (pos < size) {
        return pos;
    }

    if (pos + size < size) {
        return pos + size;
    }

    st->turn = off - off % size;

    return off - st->turn;
}

/* the record at off; off must have been one */
#define ngx_rt_log_at(st, off)                                                \
    ((ngx_rt_record_sh_t *) ((st)->log + ngx_rt_log_pos(st, off)))

/* bytes of a record with len bytes of event and data */
#define ngx_rt_log_size(len)                                                  \
    ngx_align(sizeof(ngx_rt_record_sh_t) + (len), 8)

/* size of the record at off, 0 if there is none of sound form before end */
uint32_t ngx_rt_log_check(ngx_rt_store_t *st, uint64_t off, uint64_t end);

/*
 * Makes room for a record and reserves it: *off is where it will be.  Moves
 * other records, so an offset read before is to be read again.  NULL: larger
 * than ngx_rt_log_max, or no room (never in a sound zone).
 */
void *ngx_rt_log_reserve(ngx_rt_store_t *st, size_t size, uint64_t *off);

/* the same without making room: NULL when there is none */
void *ngx_rt_log_append(ngx_rt_store_t *st, size_t size, uint64_t *off);

/* fills a reserved record; rec->size is that of the reservation */
void ngx_rt_log_write(void *dst, const ngx_rt_record_sh_t *rec,
    const ngx_str_t *event, const ngx_str_t *data);

/* the same from another record of that size */
void ngx_rt_log_copy(void *dst, const ngx_rt_record_sh_t *rec);

/* makes it visible; end: its offset and size */
void ngx_rt_log_commit(ngx_rt_store_t *st, uint64_t end);

/* all of it for a record without event; data may be NULL.  NGX_OK or
 * NGX_ERROR; sets size, data_len and, the next one, seq of rec */
ngx_int_t ngx_rt_log_note(ngx_rt_store_t *st, ngx_rt_record_sh_t *rec,
    const ngx_str_t *data, uint64_t *off);


/* ngx_rt_table.c */

/* opens and closes the entry to changes */
void ngx_rt_entry_open(ngx_rt_entry_sh_t *e);
void ngx_rt_entry_close(ngx_rt_entry_sh_t *e);

/* of an open entry */
void ngx_rt_entry_tag(ngx_rt_entry_sh_t *e, const u_char *tag);

/* index of a channel, or NGX_RT_NONE; the same where it may be at i still */
uint32_t ngx_rt_table_find(ngx_rt_store_t *st, const ngx_rt_key_t *key);
uint32_t ngx_rt_table_known(ngx_rt_store_t *st, const ngx_rt_key_t *key,
    uint32_t i);

/* marks an entry as used now; without the lock, too: a stamp in the future is
 * taken back, and that it may hit the entry's next channel does no harm */
void ngx_rt_table_stamp(ngx_rt_entry_sh_t *e, time_t now);

/* takes a free entry, gives it back; NGX_RT_NONE: the table is full */
uint32_t ngx_rt_table_alloc(ngx_rt_store_t *st);
void ngx_rt_table_free(ngx_rt_store_t *st, uint32_t i);

/* puts an entry into its bucket, takes it out */
void ngx_rt_table_insert(ngx_rt_store_t *st, uint32_t i);
void ngx_rt_table_unlink(ngx_rt_store_t *st, uint32_t i);

/* puts an entry into the want queue unless it is in it */
void ngx_rt_table_want(ngx_rt_store_t *st, uint32_t i);

/* the fields of an entry, as the locked paths return them */
void ngx_rt_table_copy(ngx_rt_store_t *st, uint32_t i, ngx_rt_view_t *view);


/* ngx_rt_retain.c: what is promised, and how it is kept or given up */

/* the most bytes of names and latest messages, and of those and history */
#define ngx_rt_retain_pinned(sh)  ((sh)->log_size / 8 * 5 - 1024)
#define ngx_rt_retain_all(sh)     ((sh)->log_size / 2)

/* evicts channels (but keep) until size more bytes may be pinned */
ngx_int_t ngx_rt_retain_budget(ngx_rt_store_t *st, size_t size, uint32_t keep);

/* evicts one channel, unused long, but keep; NGX_OK, NGX_DECLINED: none */
ngx_int_t ngx_rt_retain_evict(ngx_rt_store_t *st, uint32_t keep);

/* takes a channel out of the table and tells so in the log */
void ngx_rt_retain_forget(ngx_rt_store_t *st, uint32_t i);

/* makes the committed message at off the latest of its channel, which forgets
 * what is too much or too old */
void ngx_rt_retain_link(ngx_rt_store_t *st, uint64_t off);

/* moves the tail over one record, carrying it forward or giving it up; size:
 * what room is being made for.  NGX_OK, NGX_ERROR: the tail did not move */
ngx_int_t ngx_rt_retain_pass(ngx_rt_store_t *st, size_t size);

/* makes all that leads to the record lead to its copy */
void ngx_rt_retain_relink(ngx_rt_store_t *st, uint64_t off, uint64_t copy);

/* drops all messages of a channel; seq: its new version and floor; tag: the
 * new place in the stream, NULL: as before */
void ngx_rt_retain_clear(ngx_rt_store_t *st, uint32_t i, uint64_t seq,
    const u_char *tag);

/* the name of a channel, pointing into the log; empty if it is unreadable */
void ngx_rt_retain_name(ngx_rt_store_t *st, uint32_t i, ngx_str_t *name);

/* the same into buf (NGX_RT_CHANNEL_MAX bytes); its length */
size_t ngx_rt_retain_name_copy(ngx_rt_store_t *st, uint32_t i, u_char *buf);


/* ngx_rt_recover.c */

/* repairs a zone whose writer was killed */
void ngx_rt_recover(ngx_rt_store_t *st);

/* moves the tail over what is no record; NGX_OK */
ngx_int_t ngx_rt_recover_skip(ngx_rt_store_t *st);


#endif /* _NGX_RT_STORE_H_INCLUDED_ */
