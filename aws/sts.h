/* sts.h - who we are. Errors: aws/client.h. */
#ifndef AWS_STS_H
#define AWS_STS_H

#include "aws/client.h"

typedef struct StsIdentity {
    const char *account, *arn, *user_id;
} StsIdentity;

MUST_USE bool sts_get_caller_identity(Aws *aws, Arena *arena, StsIdentity *out, Err *err);

#endif
