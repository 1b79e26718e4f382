/* failure.h - what an error answer of AWS means: its code, whether another attempt makes sense,
 * what an operator can do. */
#ifndef AWS_FAILURE_H
#define AWS_FAILURE_H

#include "aws/endpoint.h"
#include "aws/http.h"

typedef struct Failure {
    char code[64];
    char message[512];
    char request_id[80];
    int status;
    bool transient; /* the same call may succeed later */
    bool throttled;
    bool timed_out;
    bool clock;   /* our clock may be wrong */
    bool expired; /* the credentials ran out */
    bool mended;  /* the cause is gone: try again at once */
} Failure;

void failure_read(AwsProtocol protocol, const HttpAnswer *answer, Failure *failure);
/* "RDS CopyDBSnapshot: KMSKeyNotAccessibleFault: … (request id …)" */
void failure_fill(const Failure *failure, const AwsService *service, const char *operation,
                  unsigned attempts, Err *err);
/* What the answer asks for, 0 when nothing. */
uint64_t failure_retry_after_ms(const HttpAnswer *answer);

#endif
