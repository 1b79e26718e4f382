/* hash.h - SHA-256 and its HMAC from OpenSSL.
 *
 * A file of its own because OpenSSL's headers and err.h both own the name ERR_STATE. False: the
 * library refuses (a FIPS policy, no memory).
 */
#ifndef AWS_HASH_H
#define AWS_HASH_H

#include "engine/base/span.h"

#define HASH_BYTES 32
#define HASH_HEX   (HASH_BYTES * 2 + 1)

MUST_USE bool hash_sha256(Span text, uint8_t out[HASH_BYTES]);
MUST_USE bool hash_hmac(Span key, Span text, uint8_t out[HASH_BYTES]); /* out may be the key */
void hash_hex(const uint8_t hash[HASH_BYTES], char out[HASH_HEX]);

#endif
