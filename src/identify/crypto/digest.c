/* MD5 (RFC 1321), SHA-1 and SHA-256 (FIPS 180-4) for libyara; see CommonCrypto/CommonDigest.h. */
#include <CommonCrypto/CommonDigest.h>
#include <stddef.h>
#include <string.h>

typedef void (*compress)(uint32_t *state, const uint8_t *block);

static uint32_t left(uint32_t x, unsigned n) { return (x << n) | (x >> (32 - n)); }

static uint32_t right(uint32_t x, unsigned n) { return (x >> n) | (x << (32 - n)); }

static uint32_t big(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t little(const uint8_t *p) {
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* What all three have in common: blocks of 64 bytes, and an end with the length in bits. */

static void begin(azulite_digest *d, const uint32_t *state, size_t words) {
    memset(d, 0, sizeof *d);
    memcpy(d->state, state, words * sizeof *state);
}

static void take(azulite_digest *d, const uint8_t *data, size_t length, compress one) {
    size_t held = d->length % 64;
    d->length += length;
    if (held) {
        size_t room = 64 - held, part = length < room ? length : room;
        if (part) memcpy(d->block + held, data, part);
        if (part < room) return;
        data += part;
        length -= part;
        one(d->state, d->block);
    }
    for (; length >= 64; data += 64, length -= 64) one(d->state, data);
    if (length) memcpy(d->block, data, length);
}

static void end(azulite_digest *d, compress one, int big_endian, uint8_t *out, size_t words) {
    uint64_t bits = d->length * 8;
    size_t held = d->length % 64;
    d->block[held++] = 0x80;
    if (held > 56) {
        memset(d->block + held, 0, 64 - held);
        one(d->state, d->block);
        held = 0;
    }
    memset(d->block + held, 0, 56 - held);
    for (unsigned i = 0; i < 8; i++) d->block[56 + i] = (uint8_t)(bits >> (big_endian ? 56 - 8 * i : 8 * i));
    one(d->state, d->block);
    for (size_t i = 0; i < words * 4; i++)
        out[i] = (uint8_t)(d->state[i / 4] >> (big_endian ? 24 - 8 * (i % 4) : 8 * (i % 4)));
}

static const uint32_t md5_table[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};

static void md5(uint32_t *state, const uint8_t *block) {
    static const uint8_t turns[16] = {7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21};
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], words[16];
    for (unsigned i = 0; i < 16; i++) words[i] = little(block + 4 * i);
    for (unsigned i = 0; i < 64; i++) {
        uint32_t f;
        unsigned k;
        switch (i / 16) {
        case 0: f = (b & c) | (~b & d); k = i; break;
        case 1: f = (b & d) | (c & ~d); k = 5 * i + 1; break;
        case 2: f = b ^ c ^ d; k = 3 * i + 5; break;
        default: f = c ^ (b | ~d); k = 7 * i; break;
        }
        uint32_t next = b + left(a + f + md5_table[i] + words[k % 16], turns[i / 16 * 4 + i % 4]);
        a = d, d = c, c = b, b = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

static void sha1(uint32_t *state, const uint8_t *block) {
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], w[80];
    for (unsigned i = 0; i < 16; i++) w[i] = big(block + 4 * i);
    for (unsigned i = 16; i < 80; i++) w[i] = left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (unsigned i = 0; i < 80; i++) {
        uint32_t f, k;
        switch (i / 20) {
        case 0: f = (b & c) | (~b & d); k = 0x5a827999; break;
        case 1: f = b ^ c ^ d; k = 0x6ed9eba1; break;
        case 2: f = (b & c) | (b & d) | (c & d); k = 0x8f1bbcdc; break;
        default: f = b ^ c ^ d; k = 0xca62c1d6; break;
        }
        uint32_t next = left(a, 5) + f + e + k + w[i];
        e = d, d = c, c = left(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

static const uint32_t sha256_table[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static void sha256(uint32_t *state, const uint8_t *block) {
    uint32_t s[8], w[64];
    memcpy(s, state, sizeof s);
    for (unsigned i = 0; i < 16; i++) w[i] = big(block + 4 * i);
    for (unsigned i = 16; i < 64; i++) {
        uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + (right(x, 7) ^ right(x, 18) ^ x >> 3) + w[i - 7] + (right(y, 17) ^ right(y, 19) ^ y >> 10);
    }
    for (unsigned i = 0; i < 64; i++) {
        uint32_t one = s[7] + (right(s[4], 6) ^ right(s[4], 11) ^ right(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                       sha256_table[i] + w[i];
        uint32_t two = (right(s[0], 2) ^ right(s[0], 13) ^ right(s[0], 22)) +
                       ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one;
        s[0] = one + two;
    }
    for (unsigned i = 0; i < 8; i++) state[i] += s[i];
}

static const uint32_t start[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};

static const uint32_t sha256_start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

int CC_MD5_Init(CC_MD5_CTX *context) { begin(context, start, 4); return 1; }

int CC_MD5_Update(CC_MD5_CTX *context, const void *data, CC_LONG length) { take(context, data, length, md5); return 1; }

int CC_MD5_Final(unsigned char *digest, CC_MD5_CTX *context) { end(context, md5, 0, digest, 4); return 1; }

int CC_SHA1_Init(CC_SHA1_CTX *context) { begin(context, start, 5); return 1; }

int CC_SHA1_Update(CC_SHA1_CTX *context, const void *data, CC_LONG length) { take(context, data, length, sha1); return 1; }

int CC_SHA1_Final(unsigned char *digest, CC_SHA1_CTX *context) { end(context, sha1, 1, digest, 5); return 1; }

int CC_SHA256_Init(CC_SHA256_CTX *context) { begin(context, sha256_start, 8); return 1; }

int CC_SHA256_Update(CC_SHA256_CTX *context, const void *data, CC_LONG length) {
    take(context, data, length, sha256);
    return 1;
}

int CC_SHA256_Final(unsigned char *digest, CC_SHA256_CTX *context) { end(context, sha256, 1, digest, 8); return 1; }
