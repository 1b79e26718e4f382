#include "aws/hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

bool hash_sha256(Span text, uint8_t out[HASH_BYTES])
{
    unsigned len;

    return EVP_Digest(text.len ? text.at : (const uint8_t *)"", text.len, out, &len, EVP_sha256(),
                      NULL) == 1;
}

bool hash_hmac(Span key, Span text, uint8_t out[HASH_BYTES])
{
    uint8_t whole[EVP_MAX_MD_SIZE];
    unsigned len;

    if (key.len > INT32_MAX ||
        !HMAC(EVP_sha256(), key.at, (int)key.len, text.at, text.len, whole, &len))
        return false;
    memcpy(out, whole, HASH_BYTES);
    explicit_bzero(whole, sizeof(whole));
    return true;
}

void hash_hex(const uint8_t hash[HASH_BYTES], char out[HASH_HEX])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < HASH_BYTES; i++) {
        out[i * 2] = digits[hash[i] >> 4];
        out[i * 2 + 1] = digits[hash[i] & 15];
    }
    out[HASH_BYTES * 2] = '\0';
}
