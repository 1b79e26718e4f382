/* kms.h - what KMS says about a key. Errors: aws/client.h. */
#ifndef AWS_KMS_H
#define AWS_KMS_H

#include "aws/client.h"

typedef struct KmsKey {
    const char *id, *arn, *account, *description;
    const char *state;   /* Enabled, Disabled, PendingDeletion, … */
    const char *manager; /* CUSTOMER, AWS */
    const char *spec;    /* SYMMETRIC_DEFAULT, … */
    const char *usage;   /* ENCRYPT_DECRYPT, … */
    const char *origin;  /* AWS_KMS, EXTERNAL, AWS_CLOUDHSM, … */
    AwsBool enabled, multi_region;
} KmsKey;

/* key: id, ARN, alias/name or alias ARN. */
MUST_USE bool kms_describe_key(Aws *aws, const char *key, Arena *arena, KmsKey *out, Err *err);
/* The key can encrypt an RDS copy; else ERR_AWS that says why not and what to do. */
MUST_USE bool kms_check_key(const KmsKey *key, Err *err);

#endif
