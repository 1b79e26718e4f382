/* sigv4.h - AWS Signature Version 4: header signing and presigned queries.
 *
 * Pure: a request and a moment in, texts out. Everything given in `headers` is signed; host (and
 * for header signing x-amz-date) must be among them. Outputs live in the arena. No secret is in any
 * output, but a session token is in the canonical request: never log it.
 */
#ifndef AWS_SIGV4_H
#define AWS_SIGV4_H

#include "aws/http.h"
#include "engine/base/arena.h"

typedef struct AwsKeys {
    char *id;
    char *secret;
    char *token;      /* NULL: none */
    uint64_t expires; /* seconds since 1970; 0: never */
} AwsKeys;

typedef struct SigInput {
    const char *method;
    Span path;  /* as on the request line, without the query; empty is "/" */
    Span query; /* as on the request line, without "?" */
    const HttpHeader *headers;
    size_t header_count;
    Span body;
    const char *region;
    const char *service;
    uint64_t when;  /* seconds since 1970 */
    bool keep_path; /* don't resolve "." and ".." and repeated slashes */
} SigInput;

typedef struct SigOutput {
    Span canonical;
    const char *to_sign;
    const char *signature;      /* 64 hexadecimal digits */
    const char *signed_headers; /* "host;x-amz-date" */
    const char *authorization;  /* value of that header; NULL after presign */
    const char *query;          /* whole query with signature; NULL after sign */
} SigOutput;

#define SIGV4_DATE 17
/* 20150830T123600Z */
const char *sigv4_date(uint64_t when, char out[SIGV4_DATE]);

MUST_USE bool sigv4_sign(const SigInput *in, const AwsKeys *keys, Arena *arena, SigOutput *out,
                         Err *err);
/* Valid for `seconds` from in->when. The token of the keys, if any, becomes part of the query. */
MUST_USE bool sigv4_presign(const SigInput *in, const AwsKeys *keys, unsigned seconds, Arena *arena,
                            SigOutput *out, Err *err);

/* Percent-encoding as AWS wants it: all but A-Z a-z 0-9 - . _ ~ (and / if kept) become %XX. */
void sigv4_encode(Buf *to, Span text, bool keep_slash);
/* The two halves of the canonical request that peers could confuse us with; here for tests and the
 * fuzzer. */
void sigv4_canonical_path(Buf *to, Span path, bool keep_path, Arena *arena);
void sigv4_canonical_query(Buf *to, Span query, Arena *arena);

/* Overwrite and free the texts. */
void aws_keys_wipe(AwsKeys *keys);
AwsKeys aws_keys_dup(const AwsKeys *keys);

#endif
