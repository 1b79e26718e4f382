/* sha256.h - SHA-256 in hex. */
#ifndef SHA256_H
#define SHA256_H

#include "engine/base/span.h"

#define SHA256_TEXT 65
const char *sha256_text(Span bytes, char out[SHA256_TEXT]); /* returns out */

#endif
