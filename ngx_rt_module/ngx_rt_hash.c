
/*
 * Copyright (C) 2026 ngx_rt contributors
 *
 * SipHash-2-4 with 128 bits of output.  Keyed, so that names chosen by
 * clients can't be made to collide in the table.
 */


#include <ngx_rt_base.h>


#define ngx_rt_rotl(x, b)  (((x) << (b)) | ((x) >> (64 - (b))))

#define ngx_rt_sipround(v0, v1, v2, v3)                                       \
    v0 += v1; v1 = ngx_rt_rotl(v1, 13); v1 ^= v0; v0 = ngx_rt_rotl(v0, 32);   \
    v2 += v3; v3 = ngx_rt_rotl(v3, 16); v3 ^= v2;                             \
    v0 += v3; v3 = ngx_rt_rotl(v3, 21); v3 ^= v0;                             \
    v2 += v1; v1 = ngx_rt_rotl(v1, 17); v1 ^= v2; v2 = ngx_rt_rotl(v2, 32)


static ngx_inline uint64_t
ngx_rt_load64(const u_char *p)
{
    return (uint64_t) p[0] | (uint64_t) p[1] << 8 | (uint64_t) p[2] << 16
           | (uint64_t) p[3] << 24 | (uint64_t) p[4] << 32
           | (uint64_t) p[5] << 40 | (uint64_t) p[6] << 48
           | (uint64_t) p[7] << 56;
}


void
ngx_rt_hash128(const u_char key[16], const void *data, size_t len,
    uint64_t out[2])
{
    size_t         left;
    uint64_t       k0, k1, v0, v1, v2, v3, m;
    const u_char  *p;

    k0 = ngx_rt_load64(key);
    k1 = ngx_rt_load64(key + 8);

    v0 = 0x736f6d6570736575ULL ^ k0;
    v1 = 0x646f72616e646f6dULL ^ k1 ^ 0xee;
    v2 = 0x6c7967656e657261ULL ^ k0;
    v3 = 0x7465646279746573ULL ^ k1;

    p = data;

    for (left = len; left >= 8; left -= 8, p += 8) {
        m = ngx_rt_load64(p);
        v3 ^= m;
        ngx_rt_sipround(v0, v1, v2, v3);
        ngx_rt_sipround(v0, v1, v2, v3);
        v0 ^= m;
    }

    m = (uint64_t) len << 56;

    while (left) {
        left--;
        m |= (uint64_t) p[left] << (8 * left);
    }

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
