
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * SipHash-2-4 with 128 bits of output, after the reference implementation.
 */


#include <ngx_rt_base.h>


#define ngx_rt_rotl(x, n)         (((x) << (n)) | ((x) >> (64 - (n))))

#define ngx_rt_sipround(v0, v1, v2, v3)                                       \
    v0 += v1;  v1 = ngx_rt_rotl(v1, 13);  v1 ^= v0;  v0 = ngx_rt_rotl(v0, 32);\
    v2 += v3;  v3 = ngx_rt_rotl(v3, 16);  v3 ^= v2;                           \
    v0 += v3;  v3 = ngx_rt_rotl(v3, 21);  v3 ^= v0;                           \
    v2 += v1;  v1 = ngx_rt_rotl(v1, 17);  v1 ^= v2;  v2 = ngx_rt_rotl(v2, 32)


static ngx_inline uint64_t
ngx_rt_load64(const u_char *p)
{
    uint64_t  v;

    ngx_memcpy(&v, p, 8);

#if (NGX_HAVE_LITTLE_ENDIAN)
    return v;
#else
    return __builtin_bswap64(v);
#endif
}


/* the last, partial word: the rest of the bytes, the length on top */

static ngx_inline uint64_t
ngx_rt_load_tail(const u_char *p, size_t len)
{
    uint64_t  v;

    v = (uint64_t) len << 56;

    switch (len & 7) {

    case 7:
        v |= (uint64_t) p[6] << 48;
        /* fall through */
    case 6:
        v |= (uint64_t) p[5] << 40;
        /* fall through */
    case 5:
        v |= (uint64_t) p[4] << 32;
        /* fall through */
    case 4:
        v |= (uint64_t) p[3] << 24;
        /* fall through */
    case 3:
        v |= (uint64_t) p[2] << 16;
        /* fall through */
    case 2:
        v |= (uint64_t) p[1] << 8;
        /* fall through */
    case 1:
        v |= (uint64_t) p[0];
    }

    return v;
}


void
ngx_rt_hash128(const u_char key[16], const void *data, size_t len,
    uint64_t out[2])
{
    size_t         n;
    uint64_t       k0, k1, m, v0, v1, v2, v3;
    const u_char  *p;

    k0 = ngx_rt_load64(key);
    k1 = ngx_rt_load64(key + 8);

    v0 = k0 ^ 0x736f6d6570736575;
    v1 = k1 ^ 0x646f72616e646f6d ^ 0xee;
    v2 = k0 ^ 0x6c7967656e657261;
    v3 = k1 ^ 0x7465646279746573;

    p = data;

    for (n = len / 8; n; n--) {
        m = ngx_rt_load64(p);
        p += 8;

        v3 ^= m;
        ngx_rt_sipround(v0, v1, v2, v3);
        ngx_rt_sipround(v0, v1, v2, v3);
        v0 ^= m;
    }

    m = ngx_rt_load_tail(p, len);

    v3 ^= m;
    ngx_rt_sipround(v0, v1, v2, v3);
    ngx_rt_sipround(v0, v1, v2, v3);
    v0 ^= m;

    v2 ^= 0xee;
    ngx_rt_sipround(v0, v1, v2, v3);
    ngx_rt_sipround(v0, v1, v2, v3);
    ngx_rt_sipround(v0, v1, v2, v3);
    ngx_rt_sipround(v0, v1, v2, v3);

    out[0] = v0 ^ v1 ^ v2 ^ v3;

    v1 ^= 0xdd;
    ngx_rt_sipround(v0, v1, v2, v3);
    ngx_rt_sipround(v0, v1, v2, v3);
    ngx_rt_sipround(v0, v1, v2, v3);
    ngx_rt_sipround(v0, v1, v2, v3);

    out[1] = v0 ^ v1 ^ v2 ^ v3;
}
