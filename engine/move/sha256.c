/* Apart from the rest because OpenSSL has an ERR_STATE of its own. */
#include "engine/move/sha256.h"

#include <openssl/evp.h>

const char *sha256_text(Span bytes, char out[SHA256_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t hash[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (!EVP_Digest(bytes.at ? bytes.at : (const uint8_t *)"", bytes.len, hash, &len, EVP_sha256(),
                    NULL) ||
        len != 32)
        abort();
    for (unsigned i = 0; i < len; i++) {
        out[2 * i] = digits[hash[i] >> 4];
        out[2 * i + 1] = digits[hash[i] & 15];
    }
    out[64] = '\0';
    return out;
}
