/* assume.h - credentials of a role from STS, the one service call that credentials themselves may
 * need. */
#ifndef AWS_ASSUME_H
#define AWS_ASSUME_H

#include "aws/endpoint.h"
#include "aws/http.h"
#include "aws/sigv4.h"

typedef struct Assume {
    const char *role;        /* ARN */
    const char *session;     /* name in CloudTrail; NULL: keybridge */
    const char *external_id; /* NULL: none */
    const char *duration;    /* seconds; NULL: STS's own */
    const char *token;       /* web identity: then the request isn't signed and keys are NULL */
} Assume;

MUST_USE bool assume_role(Http *http, const Endpoint *endpoint, const AwsKeys *keys,
                          const Assume *how, AwsKeys *out, Err *err);

/* 2026-11-24T12:36:00Z to seconds since 1970; 0 when it isn't such a time. */
uint64_t aws_time(const char *text);

#endif
