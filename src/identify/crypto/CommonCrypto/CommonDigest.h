/* The digests that libyara asks for, under the names of the library it takes them from on another system.
 *
 * `.cargo/config.toml` puts this folder on the compiler's path, `build.rs` compiles `digest.c`. Final may be called once
 * for a context; a context is plain memory and needs no end. */
#ifndef AZULITE_COMMON_DIGEST_H
#define AZULITE_COMMON_DIGEST_H

#include <stdint.h>

typedef uint32_t CC_LONG;

/* Chaining values, bytes taken so far, and the bytes that wait for their block to be full. */
typedef struct {
    uint32_t state[8];
    uint64_t length;
    uint8_t block[64];
} azulite_digest;

typedef azulite_digest CC_MD5_CTX;
typedef azulite_digest CC_SHA1_CTX;
typedef azulite_digest CC_SHA256_CTX;

#define CC_MD5_DIGEST_LENGTH 16
#define CC_SHA1_DIGEST_LENGTH 20
#define CC_SHA256_DIGEST_LENGTH 32

int CC_MD5_Init(CC_MD5_CTX *context);
int CC_MD5_Update(CC_MD5_CTX *context, const void *data, CC_LONG length);
int CC_MD5_Final(unsigned char *digest, CC_MD5_CTX *context);

int CC_SHA1_Init(CC_SHA1_CTX *context);
int CC_SHA1_Update(CC_SHA1_CTX *context, const void *data, CC_LONG length);
int CC_SHA1_Final(unsigned char *digest, CC_SHA1_CTX *context);

int CC_SHA256_Init(CC_SHA256_CTX *context);
int CC_SHA256_Update(CC_SHA256_CTX *context, const void *data, CC_LONG length);
int CC_SHA256_Final(unsigned char *digest, CC_SHA256_CTX *context);

#endif
