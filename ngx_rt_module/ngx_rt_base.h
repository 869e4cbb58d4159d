
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * Layer 0, pure functions over bytes: no shared memory, no events, no HTTP.
 * Nothing here allocates from a pool, logs or keeps state, so that each file
 * is tested and fuzzed alone.
 */


#ifndef _NGX_RT_BASE_H_INCLUDED_
#define _NGX_RT_BASE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_RT_VERSION            "0.1.0"

#define NGX_RT_CHANNEL_MAX        255
#define NGX_RT_EVENT_MAX          255

/* bytes of a content digest kept and told, 96 bits of a 128-bit hash */
#define NGX_RT_DIGEST_LEN         12

/*
 * What a message is known by on every node.  Of a stream: its entry's id
 * (ngx_rt_sid.c), so memcmp() orders.  Else: the digest, the rest zeros.
 */
#define NGX_RT_TAG_LEN            16


/*
 * A fault point: where a test kills the process to prove that the next
 * writer repairs what is left.  It exists in test builds only.
 */
#if (NGX_RT_FAULTS)
void ngx_rt_fault(const char *name);
#define NGX_RT_FAULT(name)        ngx_rt_fault(name)
#else
#define NGX_RT_FAULT(name)
#endif


/* ngx_rt_hash.c: SipHash (Aumasson, Bernstein: "SipHash: a fast short-input
 * PRF"), keyed with 16 bytes */

/*
 * SipHash-2-4 with 128 bits of output.  out[0] is the low half as the
 * reference implementation writes it, little-endian.
 */
void ngx_rt_hash128(const u_char key[16], const void *data, size_t len,
    uint64_t out[2]);


/* ngx_rt_cursor.c */

/*
 * A cursor is a place in the order of messages, told to clients as ETag, as
 * SSE id and as the WebSocket's resume token, one text for all three:
 *
 *     EEEEEEEE.SSS[.DDDDDDDDDDDDDDDD[,TTTTTTTTTTTTTTTT]]
 *
 *     E  epoch, 48 bits, 8 characters: the zone that counted
 *     S  seq, 1 to 11 characters, no leading "A" but in 0, which is "A": all
 *        messages of that zone up to this one have been seen
 *     D  digest of the newest message seen, 16 characters: lets another node,
 *        which counts otherwise, find the same content
 *     T  digest of the whole set, several channels only (polls)
 *
 * all in the URL-safe base64 alphabet (A-Z a-z 0-9 - _), most significant
 * bits first.  A text is accepted only in exactly the form that
 * ngx_rt_cursor_format() writes, so equal cursors are equal texts.
 */

typedef struct {
    uint64_t                      epoch;    /* 48 bits */
    uint64_t                      seq;
    unsigned                      digested:1;
    unsigned                      grouped:1;    /* only with digested */
    u_char                        digest[NGX_RT_DIGEST_LEN];
    u_char                        group[NGX_RT_DIGEST_LEN];
} ngx_rt_cursor_t;

/* 8 "." 11 "." 16 "," 16 */
#define NGX_RT_CURSOR_LEN         54

/* writes at most NGX_RT_CURSOR_LEN bytes, returns the end */
u_char *ngx_rt_cursor_format(u_char *p, const ngx_rt_cursor_t *cursor);

/* NGX_OK; NGX_DECLINED: not a cursor of this form, *cursor is untouched */
ngx_int_t ngx_rt_cursor_parse(ngx_rt_cursor_t *cursor, const u_char *text,
    size_t len);

/*
 * Walks an If-None-Match value (RFC 9110, 13.1.2): each call takes one
 * element off the front of *list and puts the opaque part of its entity-tag,
 * without W/ and quotes, into *tag.
 *
 * NGX_OK        *tag is set
 * NGX_DONE      the list is at its end
 * NGX_DECLINED  the element is "*", which stands alone
 * NGX_ERROR     malformed; what follows must be ignored (nothing matches)
 *
 * An element is malformed, too, if what comes between it and the next one is
 * or if the next one is "*".  Unless NGX_OK, *list is empty then.
 */
ngx_int_t ngx_rt_etag_next(ngx_str_t *list, ngx_str_t *tag);


/*
 * ngx_rt_sid.c: ids of stream entries (Redis, "Streams": entry IDs), two
 * 64-bit numbers that Redis writes as <milliseconds>-<sequence>.  In a tag
 * both are big-endian, so memcmp() compares ids.  0-0 is no entry's: the place
 * before all of them.
 */

/* 20 "-" 20 */
#define NGX_RT_SID_LEN            41

#define ngx_rt_sid_cmp(a, b)      ngx_memcmp(a, b, NGX_RT_TAG_LEN)

/* writes at most NGX_RT_SID_LEN bytes, returns the end */
u_char *ngx_rt_sid_format(u_char *p, const u_char tag[NGX_RT_TAG_LEN]);

/* NGX_OK; NGX_DECLINED: not an id in the form that is written, tag is
 * untouched */
ngx_int_t ngx_rt_sid_parse(u_char tag[NGX_RT_TAG_LEN], const u_char *text,
    size_t len);

/* makes it the id just before; of 0-0: the same */
void ngx_rt_sid_before(u_char tag[NGX_RT_TAG_LEN]);

/* 1: place is the id just before tag, so no entry can be between them */
ngx_uint_t ngx_rt_sid_adjacent(const u_char place[NGX_RT_TAG_LEN],
    const u_char tag[NGX_RT_TAG_LEN]);

/*
 * A cursor of streams: of one channel the id of the entry seen last; of
 * several, in the order of the request,
 *
 *     SSSS.[id],[id],...
 *
 *     S  hash of the names, 4 characters: a cursor of other channels, or in
 *        another order, is not ours
 *
 * where an id may be missing: nothing is known yet of that channel.
 */

#define NGX_RT_PLACES_MAX         32

/* bytes of a cursor of n channels, at most */
#define ngx_rt_places_len(n)      (5 + (n) * (NGX_RT_SID_LEN + 1))
#define NGX_RT_PLACES_LEN         ngx_rt_places_len(NGX_RT_PLACES_MAX)

typedef struct {
    u_char                        tag[NGX_RT_TAG_LEN];
    unsigned                      known:1;
} ngx_rt_place_t;

/* the hash of the names, 24 bits; of one channel 0 */
uint32_t ngx_rt_places_set(const ngx_str_t *channels, ngx_uint_t n);

/* n: 1 to NGX_RT_PLACES_MAX; one channel's place is known.  Returns the end */
u_char *ngx_rt_places_format(u_char *p, const ngx_rt_place_t *places,
    ngx_uint_t n, uint32_t set);

/* NGX_OK; NGX_DECLINED: not a cursor of that set, in the form that is
 * written; places are undefined then */
ngx_int_t ngx_rt_places_parse(ngx_rt_place_t *places, ngx_uint_t n,
    uint32_t set, const u_char *text, size_t len);


/* ngx_rt_message.c */

/* a message as it came in; the strings point into the payload or scratch */
typedef struct {
    ngx_str_t                     data;
    ngx_str_t                     event;    /* empty: none */
    ngx_str_t                     version;  /* empty: the data is its version */
} ngx_rt_message_t;

/* NGX_OK, or NGX_ERROR: 1..255 bytes, none a control byte (0-31, 127) or a
 * space */
ngx_int_t ngx_rt_channel_check(const ngx_str_t *name);

/* NGX_OK, or NGX_ERROR: 1..255 bytes, no CR, LF, NUL, does not begin "rt." */
ngx_int_t ngx_rt_event_check(const ngx_str_t *event);

/*
 * `payload json`: reads {"data": ..., "event": "...", "version": "..."}.
 * A string in "data" is taken as its text, any other value as the JSON text
 * it was written in, byte for byte.  "version" may be a string or a number
 * (its text).  An "event" or "version" of "" or null is none.  Unknown members
 * are ignored, of a member given twice the last counts.
 *
 * scratch must have room for payload->len bytes; the strings of *msg point
 * into it or into the payload.
 *
 * NGX_OK; NGX_DECLINED with *why set to a constant text for the log: not
 * JSON (RFC 8259; but bytes in a string that are no UTF-8 pass as they are),
 * no object, no "data", a bad event name or version, half a surrogate pair in
 * a string that is taken as text, nested deeper than 64 (the object itself
 * counts).  Never reads past payload->len, needs no terminating zero, and
 * allocates nothing.
 */
ngx_int_t ngx_rt_message_json(ngx_rt_message_t *msg, const ngx_str_t *payload,
    u_char *scratch, const char **why);

/*
 * The digest by which nodes recognise the same message: over channel, event
 * and version (or data where there is none), each keyed with the hash of the
 * one before, the first with a key fixed for all nodes, one key if there is a
 * version and another if not.
 */
void ngx_rt_message_digest(const ngx_str_t *channel,
    const ngx_rt_message_t *msg, u_char digest[NGX_RT_DIGEST_LEN]);

typedef struct {
    u_char                        channel[16];  /* the channel is hashed */
    u_char                        data[16]; /* and that there is no event */
} ngx_rt_digest_t;

/*
 * The same in two steps, where many messages of one channel come: what is
 * known by the channel alone, then the rest.  msg has no version.
 */
void ngx_rt_digest_begin(ngx_rt_digest_t *begun, const ngx_str_t *channel);
void ngx_rt_digest_end(const ngx_rt_digest_t *begun,
    const ngx_rt_message_t *msg, u_char digest[NGX_RT_DIGEST_LEN]);

/* the digest of a set: of the digests of its members in the given order */
void ngx_rt_group_digest(const u_char (*digests)[NGX_RT_DIGEST_LEN],
    ngx_uint_t n, u_char digest[NGX_RT_DIGEST_LEN]);


/* ngx_rt_frame.c: bytes out.  Each writer has a length function with the same
 * arguments that returns exactly what the writer writes. */

/*
 * One SSE event (WHATWG HTML, 9.2.5): id line unless id is empty, event line
 * unless event is empty or "message", one data line per line of data (CR, LF,
 * CRLF each end a line; empty data is one empty data line), an empty line.
 * The caller vouches for id and event having no CR, LF, NUL.
 */
size_t ngx_rt_frame_sse_len(const ngx_str_t *id, const ngx_str_t *event,
    const ngx_str_t *data);
u_char *ngx_rt_frame_sse(u_char *p, const ngx_str_t *id,
    const ngx_str_t *event, const ngx_str_t *data);

/* an `event: rt.gap` with {"channel":...,"reason":...}, and id unless empty */
size_t ngx_rt_frame_gap_len(const ngx_str_t *id, const ngx_str_t *channel,
    const ngx_str_t *reason);
u_char *ngx_rt_frame_gap(u_char *p, const ngx_str_t *id,
    const ngx_str_t *channel, const ngx_str_t *reason);

/* 1: the whole of s is well-formed UTF-8 (RFC 3629: no overlong forms, no
 * surrogates, nothing above U+10FFFF) */
ngx_uint_t ngx_rt_utf8_valid(const u_char *s, size_t len);

/*
 * A JSON string with its quotes (RFC 8259): escapes quote, backslash and
 * control bytes (short forms where JSON has them, \u00XX else) and DEL; each
 * byte that is no well-formed UTF-8 becomes U+FFFD.
 */
size_t ngx_rt_json_string_len(const ngx_str_t *s);
u_char *ngx_rt_json_string(u_char *p, const ngx_str_t *s);


#endif /* _NGX_RT_BASE_H_INCLUDED_ */
